"""CLIP's published files: which sizes they are of, and what a model of other sizes takes of them.

State dicts have the names of OpenAI's files here; `spellings.read` gives those of open_clip and of
Hugging Face the same.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.ops.resize import bilinear_matrix

HEAD = 64  # channels of an attention head in every published CLIP
TABLE = "token_embedding.weight"
POSITIONS = "visual.positional_embedding"


def image_sizes(state: Mapping[str, np.ndarray]) -> dict:
    """The settings `model.clip` that an image tower's weights decide.

    These leave out the stride, and the activation, which no file says.

    Raises InputError where the weights are not of a vision transformer of CLIP.
    """
    try:
        width, _, patch, _ = state["visual.conv1.weight"].shape
        embedding = state["visual.proj"].shape[1]
        depth = _depth(state, "visual.")
    except (KeyError, IndexError, ValueError):
        wanted = "visual.conv1, visual.proj, visual.transformer"
        raise InputError(f"holds no vision transformer of CLIP ({wanted})") from None
    return {"patch": patch, "width": width, "depth": depth, **_heads(width), "embedding": embedding}


def clip_sizes(state: Mapping[str, np.ndarray]) -> dict:
    """The settings `model.clip` that the weights of both towers decide, the text tower's in `text`.

    Raises InputError where the weights are not those of a CLIP with two transformers.
    """
    sizes = image_sizes(state)
    try:
        positions, width = state["positional_embedding"].shape
        depth = _depth(state, "")
    except (KeyError, ValueError):
        wanted = "positional_embedding, transformer"
        raise InputError(f"holds no text tower of CLIP ({wanted})") from None
    text = {"width": width, "depth": depth, **_heads(width), "positions": positions}
    return {**sizes, "text": text}


def _depth(state: Mapping[str, np.ndarray], prefix: str) -> int:
    """How many blocks a tower has; KeyError without any."""
    start = f"{prefix}transformer.resblocks."
    blocks = {key.removeprefix(start).partition(".")[0] for key in state if key.startswith(start)}
    if not blocks:
        raise KeyError(start)
    return len(blocks)


def _heads(width: int) -> dict:
    """The heads of a tower, where its width is a published one."""
    return {} if width % HEAD else {"heads": width // HEAD}


def fitted(
    state: Mapping[str, np.ndarray],
    grid: tuple[int, int],
    ids: Sequence[int] = (),
    learned: Sequence[int] = (),
) -> dict[str, np.ndarray]:
    """A state dict with positions for a grid of patches, and of all tokens those of a sentence.

    grid: rows and columns. ids: the sentence in the vocabulary; learned: the places in it of words
    that the file does not give, one after the other. With a sentence the table of tokens makes way
    for `token_prefix` [1, n, d], before these words, and `token_suffix`, behind them, as far as
    there are positions: token 0 is behind the sentence's end.

    Raises InputError where the positions are no square grid, or a token is not in the vocabulary.
    """
    fit = dict(state)
    if POSITIONS in fit:
        fit[POSITIONS] = resampled_positions(fit[POSITIONS], *grid)
    if not ids:
        return fit
    table = fit.pop(TABLE, None)
    if np.ndim(table) != 2 or len(table) <= max(ids):
        shape = "no tokens" if table is None else f"tokens of shape {table.shape}"
        raise InputError(f"has {shape} ({TABLE}), the sentence needs token {max(ids)}")
    positions = len(state["positional_embedding"])
    rows = table[[*ids, *[0] * (positions - len(ids))]][None]
    return {
        **fit,
        "token_prefix": rows[:, : learned[0]],
        "token_suffix": rows[:, learned[-1] + 1 :],
    }


def resampled_positions(positions: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Positional embeddings [1 + n, c] of a class token and a square grid, for another grid.

    In float32, bilinear at half-pixel centres without antialias; their own grid is left alone.

    Raises InputError where they are not those of a square grid.
    """
    side = math.isqrt(max(len(positions) - 1, 0)) if positions.ndim == 2 else 0
    if side < 1 or 1 + side**2 != len(positions):
        wanted = "a class token and a square of patches have [1 + side², channels]"
        raise InputError(f"{POSITIONS}: has shape {positions.shape}, {wanted}")
    if positions.dtype.kind not in "fV":  # V is bfloat16
        raise InputError(f"{POSITIONS}: is of type {positions.dtype}, not of floating point")
    if (rows, columns) == (side, side):
        return positions
    grid = np.asarray(positions[1:], np.float32).reshape(side, side, -1)
    grid = np.einsum("rh,hwc->rwc", bilinear_matrix(side, rows), grid)
    grid = np.einsum("sw,rwc->rsc", bilinear_matrix(side, columns), grid)
    return np.concatenate([np.asarray(positions[:1], np.float32), grid.reshape(rows * columns, -1)])


def activation_remark(state: Mapping[str, np.ndarray], activation: str) -> str:
    """A sentence on the activation where a file is not OpenAI's own, which has three numbers more.

    activation: the setting.
    """
    if "input_resolution" in state:
        return ""
    return (
        f"model.clip.activation is {activation}, which the file cannot tell: OpenAI's weights want "
        "quick_gelu, open_clip's of LAION and DataComp gelu"
    )
