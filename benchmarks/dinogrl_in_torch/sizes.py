"""How large a model is."""

from typing import NamedTuple


class Sizes(NamedTuple):
    """The published ones, as the settings of `dinogrl_jax` call them."""

    resized: tuple[int, int] = (448, 224)  # pixels of a frame for DINOv2
    patch: int = 14
    grid: int = 37  # side of the positional grid in the weights
    embedding: int = 384
    depth: int = 12
    heads: int = 6
    taps: tuple[int, ...] = (2, 5, 8, 11)
    map_channels: int = 16
    hidden: int = 768
    pre_channels: int = 64
    stages: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    parts: tuple[int, ...] = (1, 2, 4, 8, 16)
    features: int = 256
    identities: int = 500
    frames: int = 6  # of a tracklet
    frame: tuple[int, int] = (256, 128)  # pixels

    @property
    def channels(self) -> int:
        """Of a ResNet's last stage."""
        return 4 * self.width * 2 ** (len(self.stages) - 1)


PUBLISHED = Sizes()
# Of a rehearsal: seconds on a CPU. The same as tests/benchmarks/tiny.py.
SMALL = Sizes(
    resized=(32, 16),
    patch=8,
    grid=6,
    embedding=32,
    depth=1,
    heads=2,
    taps=(0,),
    map_channels=4,
    hidden=12,
    pre_channels=4,
    stages=(1,),
    width=6,
    parts=(1, 2),
    features=20,
    frames=2,
    frame=(32, 16),
)
