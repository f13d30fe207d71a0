"""PyTorch files and safetensors as dictionaries of arrays, read without PyTorch; and written."""
