"""The first method in very small: for the benchmark's own tests, which compile it often."""

import small
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Frames of 32×16 pixels, two a tracklet."""
    config = small.get_config()
    config.data.height, config.data.width = 32, 16
    small.sizes().shrink_more(config)
    return config
