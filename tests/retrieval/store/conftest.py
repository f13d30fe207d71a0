"""Galleries in which few tracklets are many."""

from stores import few  # noqa: F401
