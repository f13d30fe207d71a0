"""Descriptors of many tracklets: an extraction that can be stopped, and what it leaves out."""
