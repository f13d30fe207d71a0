"""Whether a data set can be used, and all that is wrong with it."""
