"""Readers: one file for each layout on disk; they return training and test tracklets."""
