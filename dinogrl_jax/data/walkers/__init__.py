"""Synthetic people who walk past cameras, rendered as a data set in HITSZ-VCM's layout."""
