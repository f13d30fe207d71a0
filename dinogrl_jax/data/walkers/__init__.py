"""Synthetic people who walk through cameras, rendered."""
