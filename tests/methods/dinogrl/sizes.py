"""DinoGRL in small: 8×4 patches, maps of 16×8, 7 + 3 parts a stream."""

from ml_collections import ConfigDict

AXES = {3, 4, 20}  # with `shrink_more`: parts, enhanced parts, channels of an embedding


def shrink(config: ConfigDict) -> None:
    """For frames of 64×32 pixels."""
    model = config.model
    model.parts, model.embedding = (1, 2, 4), 16
    model.resnet.stages, model.resnet.width = (1, 1, 1, 1), 4
    model.dinov2.update(
        {"height": 64, "width": 32, "patch": 8, "grid": 6, "embedding": 32, "depth": 2, "heads": 2}
    )
    model.dinov2.taps = (0, 1)
    model.sasgl.update({"map_channels": 4, "hidden": 16, "pre_channels": 4})


def enlarge(config: ConfigDict) -> None:
    """Another size, which weights of the first do not fit."""
    config.model.embedding = 8


def shrink_more(config: ConfigDict) -> None:
    """For frames of 32×16 pixels; no channels are as many as tracklets or parts."""
    model = config.model
    model.resnet.stages, model.parts = (1,), (1, 2)
    model.embedding, model.resnet.width, model.sasgl.hidden = 20, 6, 12
    model.dinov2.update({"height": 32, "width": 16, "depth": 1})
    model.dinov2.taps = (0,)
