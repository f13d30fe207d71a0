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
