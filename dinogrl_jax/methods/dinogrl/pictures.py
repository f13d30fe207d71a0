"""What DinoGRL's gait stream sees: a picture of its maps."""

import numpy as np
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from dinogrl_jax.data.transforms import DEVIATION, MEAN
from dinogrl_jax.methods.contract import Clips, Picture, Variables
from dinogrl_jax.methods.dinogrl.model import Model

ROWS = ("frames", "foreground", "denoising map", "appearance map")


def pictures(config: ConfigDict) -> dict[str, Picture]:
    """Frames above their maps, where there is a gait stream."""
    if "gait" not in config.model.streams:
        return {}
    columns = tuple(f"frame {i + 1}" for i in range(config.data.frames))
    return {"maps": Picture(shown_maps, drawn_maps, ", ".join(ROWS), ROWS, columns)}


def shown_maps(model: Model, variables: Variables, clips: Clips) -> list[Float[Array, "b t ..."]]:
    """The foreground, the denoising and the appearance map of every frame."""
    maps = model.apply(variables, clips, train=False).maps
    shown = maps.foreground, maps.denoising, maps.appearance
    b, _, t = clips.frames.shape[:3]
    return [x.reshape(b, t, *x.shape[1:]) for x in shown]


def drawn_maps(
    frames: Float[np.ndarray, "n t h w 3"], maps: list[Float[np.ndarray, "n t ..."]]
) -> list[UInt8[np.ndarray, "h3 w3 3"]]:
    """Each clip's frames above its maps; all clips have the same colours.

    The channels of a map are shown as colours: their first three principal components.
    """
    n, t = frames.shape[:2]
    flat = [x.reshape(n * t, *x.shape[2:]) for x in (frames, *maps)]
    return np.split(grid_of_maps(*flat), n, axis=1)


def grid_of_maps(
    frames: Float[np.ndarray, "n h w 3"],
    foreground: Float[np.ndarray, "n h2 w2"],
    denoising: Float[np.ndarray, "n h2 w2 c"],
    appearance: Float[np.ndarray, "n h2 w2 c"],
) -> UInt8[np.ndarray, "h3 w3 3"]:
    """Normalised frames above their foreground, denoising and appearance maps, side by side.

    The channels of a map are shown as colours: their first three principal components.
    """
    h, w = frames.shape[1:3]
    rows = [np.clip(frames * DEVIATION + MEAN, 0, 1)]
    rows.append(np.repeat(_enlarged(foreground[..., None], h, w), 3, axis=-1))
    rows += [
        _enlarged(_principal_colours(m, foreground > 0), h, w) for m in (denoising, appearance)
    ]
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    return np.round(255 * grid).astype(np.uint8)


def _enlarged(maps: np.ndarray, h: int, w: int) -> np.ndarray:
    rows = np.arange(h) * maps.shape[1] // h
    columns = np.arange(w) * maps.shape[2] // w
    return maps[:, rows][:, :, columns]


def _principal_colours(maps: np.ndarray, shown: np.ndarray) -> np.ndarray:
    colours = np.zeros((*maps.shape[:-1], 3), np.float32)
    values = maps[shown]
    if len(values) > 3:
        centred = values - values.mean(0)
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        projected = centred @ axes[:3].T
        low, high = np.percentile(projected, [2, 98], axis=0)
        colours[shown] = np.clip((projected - low) / np.maximum(high - low, 1e-6), 0, 1)
    return colours
