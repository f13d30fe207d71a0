"""The server: clips come in, ranked tracklets go out, and people say who is who."""
