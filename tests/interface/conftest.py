"""Commands in this process."""

from in_process import done, refused  # noqa: F401
