"""VLD in small: 4×2 patches, three blocks, and of each frame a hub token for each."""

from ml_collections import ConfigDict

AXES = {2, 8, 12}  # with `shrink_more`: features, channels of a token and of the shared space


def shrink(config: ConfigDict) -> None:
    """For frames of 64×32 pixels."""
    clip = config.model.clip
    clip.update({"width": 8, "depth": 3, "heads": 2, "embedding": 6})
    clip.text.update({"width": 8, "depth": 1, "heads": 2, "positions": 12})
    config.model.hub.update({"frames": config.data.frames, "start": 1})
    prompts = config.model.prompts
    prompts.ids, prompts.learned = (7, 1, 0, 0, 5, 8), (2, 3)
    config.data.minimum_frames = 1


def enlarge(config: ConfigDict) -> None:
    """Another size, which weights of the first do not fit."""
    config.model.clip.embedding = 10


def shrink_more(config: ConfigDict) -> None:
    """For frames of 32×16 pixels; no channels are as many as tracklets or parts."""
    config.model.clip.update({"patch": 8, "stride": 8, "width": 12, "embedding": 20})
