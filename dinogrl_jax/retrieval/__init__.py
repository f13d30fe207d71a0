"""Embedding tracklets, distances, metrics, protocols and the report."""
