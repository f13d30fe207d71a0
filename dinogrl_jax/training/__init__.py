"""The state, the one jitted step, the loop, checkpoints, and what a run survives."""
