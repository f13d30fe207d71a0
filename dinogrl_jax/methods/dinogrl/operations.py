"""How much arithmetic the published implementation of DinoGRL does, from a configuration's sizes.

PBMGE is counted as published, with its 256 channels.
"""

from ml_collections import ConfigDict

from dinogrl_jax.methods.contract import Facts
from dinogrl_jax.models.arithmetic import NOTHING, Work, conv, dinov2, resnet_stages


def operations(config: ConfigDict, facts: Facts) -> dict[str, Work]:
    """The work for one tracklet, by stage, in the order of the model.

    A stage that the model lacks is left out.
    """
    d, model, stages = config.data, config.model, {}
    size, resnet = (d.height // 4, d.width // 4), model.resnet
    if "gait" in model.streams:
        grid = (model.dinov2.height // model.dinov2.patch, model.dinov2.width // model.dinov2.patch)
        doubled = (2 * grid[0], 2 * grid[1])
        pre = model.sasgl.pre_channels
        stages |= {
            "dinov2": dinov2(model.dinov2),
            "branches": branches(model.sasgl, model.dinov2, 4 * grid[0] * grid[1]),
            "pre_blocks": pre_blocks(model.sasgl, doubled[0] * doubled[1]),
            "gait_resnet": resnet_stages(resnet.stages, resnet.width, pre, doubled),
        }
    if "appearance" in model.streams:
        stages |= {
            "stems": conv(4 * size[0] * size[1], 7, 3, resnet.width, first=True),
            "appearance_resnet": resnet_stages(resnet.stages, resnet.width, resnet.width, size),
        }
    stages = {name: work.times(d.frames) for name, work in stages.items()}
    streams, bands = len(model.streams), sum(model.parts)
    channels = resnet.width * 4 * 2 ** (len(resnet.stages) - 1)
    stages["parts"] = conv(bands, 1, channels, model.embedding).times(streams)
    if model.pbmge:
        stages["pbmge"] = pbmge(model.embedding).times(2 * (bands - model.parts[0]))
        bands += len(model.parts) - 1
    stages["classifiers"] = conv(bands, 1, model.embedding, facts.identities).times(streams)
    return stages


def branches(config: ConfigDict, backbone: ConfigDict, positions: int) -> Work:
    """The three branches of SASGL on all positions of a frame. config: `model.sasgl`."""
    last, taps = backbone.embedding, backbone.embedding * len(backbone.taps)
    return sum(
        (
            conv(positions, 1, last, 2, first=True),
            conv(positions, 1, 2, last),
            conv(positions, 1, taps, config.hidden, first=True),
            conv(positions, 1, config.hidden, config.map_channels),
            conv(positions, 1, taps, config.map_channels, first=True),
        ),
        NOTHING,
    )


def pre_blocks(config: ConfigDict, positions: int) -> Work:
    """Both blocks in front of the gait network and the fusion of a frame. config: `model.sasgl`."""
    c = config.pre_channels
    squeezed = max(c // 16, 1)
    block = conv(positions, 3, config.map_channels, c) + conv(positions, 3, c, c).times(2)
    fusion = conv(positions, 1, 2 * c, squeezed) + conv(positions, 3, squeezed, squeezed)
    return block.times(2) + fusion + conv(positions, 1, squeezed, 2 * c)


def pbmge(d: int) -> Work:
    """One visit of one direction: lifts to d channels, the affinity, two products, two 1×1."""
    lift, product = conv(d, 1, 1, d), conv(d, 1, d, d)
    return lift.times(5) + product.times(3)
