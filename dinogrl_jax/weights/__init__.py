"""PyTorch files as variables of a model, and back."""
