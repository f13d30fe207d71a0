"""What trains the weights that stand in for published ones in demos."""
