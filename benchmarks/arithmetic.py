"""How much arithmetic models do, as published: for benchmarks.

Counted are products and sums of convolutions, linear layers and attention: each multiply-add is 2
operations. Not counted: normalisations, activations, pooling, resizing, losses and the optimiser,
which are a few percent. What a fast form saves by algebra is not subtracted, and what is computed
twice to save memory is not added, so that a share of the machine's rate compares implementations.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict


class Work(NamedTuple):
    """Operations of a stage: forward, and of its gradients; the backbone has none."""

    forward: int
    backward: int

    def __add__(self, other: "Work") -> "Work":
        return Work(self.forward + other.forward, self.backward + other.backward)

    @property
    def training(self) -> int:
        return self.forward + self.backward

    def times(self, count: int) -> "Work":
        return Work(count * self.forward, count * self.backward)


NOTHING = Work(0, 0)


def total(stages: dict[str, Work]) -> Work:
    return sum(stages.values(), NOTHING)


def conv(positions: int, size: int, inputs: int, outputs: int, first: bool = False) -> Work:
    """A convolution with that many output positions; a linear layer has size 1.

    first: nothing in front of it is trained, so there is no gradient of its input.
    """
    forward = 2 * positions * size**2 * inputs * outputs
    return Work(forward, forward if first else 2 * forward)


def dinov2(config: ConfigDict) -> Work:
    """A frame's forward pass; the backbone is frozen. config: the section `model.dinov2`."""
    c, patches = config.embedding, (config.height // config.patch) * (config.width // config.patch)
    tokens = patches + 1 + config.registers
    hidden, layers = int(c * config.mlp_ratio), 2
    if config.mlp == "swiglu":
        hidden, layers = (int(hidden * 2 / 3) + 7) // 8 * 8, 3
    linear = 2 * tokens * c * (4 * c + layers * hidden)
    attention = 2 * 2 * tokens**2 * c
    embedding = 2 * patches * config.patch**2 * 3 * c
    return Work(embedding + config.depth * (linear + attention), 0)


def resnet_stages(stages: Sequence[int], width: int, inputs: int, size: tuple[int, int]) -> Work:
    """layer1 … layerN of a frame whose map has that size; the last stage keeps stride 1."""
    work, (h, w) = NOTHING, size
    for stage, blocks in enumerate(stages):
        c = width * 2**stage
        for block in range(blocks):
            before = h * w
            if block == 0 and 0 < stage < len(stages) - 1:
                h, w = h // 2, w // 2
            work += conv(before, 1, inputs, c) + conv(h * w, 3, c, c) + conv(h * w, 1, c, 4 * c)
            if block == 0:
                work += conv(h * w, 1, inputs, 4 * c)
            inputs = 4 * c
    return work


def dinogrl(config: ConfigDict, identities: int) -> dict[str, Work]:
    """DinoGRL's work for one tracklet, by stage, in the order of the model.

    PBMGE is counted as published, with its 256 channels. A stage that the model lacks is left out.
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
    stages["classifiers"] = conv(bands, 1, model.embedding, identities).times(streams)
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


# The published arithmetic of a method, by its name; a method that is not here has no shares.
METHODS = {"dinogrl": dinogrl}
