"""The report of an evaluation: one HTML file that loads nothing else."""
