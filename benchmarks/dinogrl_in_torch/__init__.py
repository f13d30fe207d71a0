"""DinoGRL's published arithmetic in PyTorch, as its user would run it, for benchmarks.

Written from the paper and checked against the outputs of the published implementation
(`golden.py`). Tensors are PyTorch's: channels first, frames [f, 3, h, w] tracklet by tracklet,
parts last. Parameters have the names of a released model's three files.
"""
