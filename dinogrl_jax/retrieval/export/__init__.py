"""A model as one program, from pictures to descriptors, for who has no more than JAX."""
