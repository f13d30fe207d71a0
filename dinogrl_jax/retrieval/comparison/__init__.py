"""Runs beside each other: what each query reached, and how far their figures differ."""
