"""Tracklets on disk, and the batches that are made of them. Nothing here imports jax."""
