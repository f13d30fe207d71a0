"""What `import dinogrl_jax` offers a program: models that embed clips, and figures of features."""
