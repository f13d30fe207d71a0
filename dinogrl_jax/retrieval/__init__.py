"""Retrieval: embedding, distances, metrics, re-ranking, protocols and the report."""
