"""X-ReID in small: 4×2 patches, three blocks."""

from ml_collections import ConfigDict

AXES = {1, 12, 44}  # with `shrink_more`: features, channels of a token, of all features


def shrink(config: ConfigDict) -> None:
    """For frames of 64×32 pixels."""
    config.model.clip.update({"width": 8, "depth": 3, "heads": 2, "embedding": 6})
    config.model.prototypes.tracklets = 4
    config.data.minimum_frames = 1


def enlarge(config: ConfigDict) -> None:
    """Another size, which weights of the first do not fit."""
    config.model.clip.embedding = 10


def shrink_more(config: ConfigDict) -> None:
    """For frames of 32×16 pixels; no channels are as many as tracklets or parts."""
    config.model.clip.update({"patch": 8, "stride": 8, "width": 12, "embedding": 20})
