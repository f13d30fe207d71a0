"""A gallery on disk: descriptors with what is known of their tracklets, and exact search."""
