"""What `benchmarks/gpu.sh` measures on a card: the original beside ours, in turns."""
