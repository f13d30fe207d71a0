"""Backbones and branches. They know pixels and tokens, not identities."""
