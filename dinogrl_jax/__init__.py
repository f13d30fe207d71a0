"""Video-based visible-infrared person re-identification in JAX."""
