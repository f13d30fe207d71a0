"""X-ReID's table of cameras: a vector of each, which the class tokens of its frames start with."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Facts

UNKNOWN = ("refuse", "mean", "none")


class Cameras(nn.Module):
    """The vectors of cameras, as the data set numbers them.

    numbers: of the rows; unknown: "mean" of all rows is what a camera without one gets, or nothing.
    """

    numbers: Sequence[int]
    width: int
    weight: float
    unknown: str

    @nn.compact
    def __call__(self, camera: Int[Array, " v"]) -> Float[Array, "v c"]:
        init = nn.initializers.normal(0.02)
        table = self.param("table", init, (len(self.numbers), self.width))
        fits = camera[:, None] == jnp.array(self.numbers, camera.dtype)
        others = table.mean(0) if self.unknown == "mean" else jnp.zeros(self.width)
        found = jnp.where(fits.any(1)[:, None], table[fits.argmax(1)], others.astype(table.dtype))
        return self.weight * found


def check_tracklets(tracklets: Sequence[Tracklet], facts: Facts, config: ConfigDict) -> None:
    """Raise InputError for a tracklet whose camera has no row, unless something stands for it."""
    if not config.model.cameras.weight or config.evaluation.unknown_camera != "refuse":
        return
    others = [tracklet for tracklet in tracklets if tracklet.camera not in facts.cameras]
    if others:
        more = f" and that of {len(others) - 1} more" if len(others) > 1 else ""
        known = ", ".join(map(str, facts.cameras))
        raise InputError(
            f"{others[0].frames[0]}: the camera of this tracklet{more} is {others[0].camera} (−1 "
            f"is unknown), and the model knows {known}: name it in the data set or the manifest, "
            "or set evaluation.unknown_camera to mean or none"
        )
