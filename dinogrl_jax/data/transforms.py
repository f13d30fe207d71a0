"""From image files to normalised clips: numpy and Pillow, one random stream per example.

Order, as published: resize, pad, crop, flip, scale, normalise, erase, mix channels; augmentations
by name (`augment.also`) come behind resizing. What happens to a frame is drawn first (`draws`),
then made (`fill_frame`), frame by frame within the processor's cache. A frame that ends as copies
of one channel goes through all of it as that channel alone.

Source: the data loaders of DinoGRL, VLD and X-ReID, and torchvision's transforms, which they use.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from PIL import Image

from dinogrl_jax.data.augmentations import Drawn, augmented_picture, drawn_augmentations
from dinogrl_jax.data.pictures import decoded
from dinogrl_jax.interface.errors import lookup

MEAN = np.array([0.485, 0.456, 0.406])  # of ImageNet, per channel
DEVIATION = np.array([0.229, 0.224, 0.225])
SCALE = (1 / (255 * DEVIATION)).astype(np.float32)
OFFSET = (-MEAN / DEVIATION).astype(np.float32)
ERASED = np.array([0.4914, 0.4822, 0.4465], np.float32)  # published: in normalised space
ERASED_AREA = (0.02, 0.4)  # share of the frame
BLOCK_AREA = (0.02, 0.2)  # the same of a block
ERASED_ASPECT = (0.3, 1 / 0.3)  # height / width
GREY_WEIGHTS = np.array([0.2989, 0.5870, 0.1140], np.float32)
ALL, GREY = "all", "grey"  # what a frame's channels become, besides channel 0, 1 or 2
INFRARED_CHANNELS = (0, 0, 1, 1, 2, 2, GREY, ALL)  # equally likely


class Augment(NamedTuple):
    """The configuration's section of the same name; what it leaves out does nothing."""

    pad: int = 0  # pixels
    flip: float = 0.0  # probability
    erase: float = 0.0  # probability
    erase_rule: str = "rectangle"  # a name in ERASE_RULES
    flip_clip: bool = False  # one flip for all frames
    channels: bool = False
    clip_consistent: bool = False
    also: tuple[str, ...] = ()  # names of `augmentations` and strengths


class Draw(NamedTuple):
    """What happens to a frame; by default nothing, as in a test."""

    down: int = 0  # pixels by which the window moves, over zeros
    right: int = 0
    flip: bool = False
    erased: tuple[slice, slice] | None = None  # rows and columns
    channels: int | str = ALL
    also: tuple[Drawn, ...] = ()
    colour: tuple[int, int, int] | None = None  # of what is erased, 0 to 255; None: ERASED


def draws(
    t: int, height: int, width: int, modality: str, augment: Augment, rng: np.random.Generator
) -> list[Draw]:
    """What happens to the `t` frames of a training clip.

    It differs from frame to frame, or not with `clip_consistent`; channels always do.
    """
    n = 1 if augment.clip_consistent else t
    shifts = rng.integers(-augment.pad, augment.pad + 1, (n, 2)).tolist()
    flips = rng.random(1 if augment.flip_clip else n) < augment.flip
    rule = lookup(ERASE_RULES, augment.erase_rule, "augment.erase_rule")
    boxes = [
        rule(height, width, rng) if coin < augment.erase else NOTHING for coin in rng.random(n)
    ]
    channels = mixed_channels(t, modality, rng) if augment.channels else [ALL] * t
    also = [drawn_augmentations(augment.also, rng) for _ in range(n)]
    return [
        Draw(
            *shifts[i % n],
            bool(flips[i % len(flips)]),
            boxes[i % n].place,
            channels[i],
            also[i % n],
            boxes[i % n].colour,
        )
        for i in range(t)
    ]


class Box(NamedTuple):
    """What is erased of a frame."""

    place: tuple[slice, slice] | None  # rows and columns
    colour: tuple[int, int, int] | None = None  # None: ERASED


NOTHING = Box(None)


def erased_rectangle(height: int, width: int, rng: np.random.Generator) -> Box:
    """A random rectangle; nothing if 100 draws do not fit into the frame."""
    for _ in range(100):
        area = rng.uniform(*ERASED_AREA) * height * width
        aspect = rng.uniform(*ERASED_ASPECT)
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return Box((slice(top, top + h), slice(left, left + w)))
    return NOTHING


def erased_block(height: int, width: int, rng: np.random.Generator) -> Box:
    """A block of one random colour; nothing if 100 draws do not fit into the frame.

    Its corner is not drawn: it is as far from the frame's as the block is large, and the frame's
    border cuts it. So the published code pastes it, whose own place for it is lost.
    """
    for _ in range(100):
        area, aspect = rng.uniform(*BLOCK_AREA) * height * width, rng.uniform(*ERASED_ASPECT)
        h, w = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if h < height and w < width:
            colour = tuple(rng.integers(256, size=3).tolist())
            return Box(block_place(int(h), int(w), height, width), colour)
    return NOTHING


def block_place(h: int, w: int, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a block of h × w pixels."""
    return slice(min(h, height), min(2 * h, height)), slice(min(w, width), min(2 * w, width))


ERASE_RULES = {"rectangle": erased_rectangle, "block-at-own-size": erased_block}


def mixed_channels(t: int, modality: str, rng: np.random.Generator) -> list[int | str]:
    """What each frame's channels become, so that colour cannot tell the modalities apart.

    A visible clip, on one coin: every frame one of its channels, or all frames unchanged. An
    infrared frame: channel 0, 1 or 2 with probability 1/4 each, grey or unchanged with 1/8 each.
    """
    if modality == "infrared":
        return [INFRARED_CHANNELS[draw] for draw in rng.integers(8, size=t)]
    return rng.integers(3, size=t).tolist() if rng.random() < 0.5 else [ALL] * t


def fill_frame(
    out: Float32[np.ndarray, "h w 3"],
    path: str,
    draw: Draw = Draw(),  # noqa: B008
    upright: bool = False,
    deep_range: Sequence[float | int] = (),
) -> None:
    """Write the file's frame, resized to `out`, as drawn and normalised.

    upright: turn it first as its EXIF orientation says. deep_range: as `decoded` has it.
    """
    h, w, _ = out.shape
    picture = augmented_picture(image(path, h, w, draw.channels, upright, deep_range), draw.also)
    if draw.down or draw.right:  # over zeros
        picture = picture.crop((draw.right, draw.down, draw.right + w, draw.down + h))
    if draw.flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = np.asarray(picture)
    if isinstance(draw.channels, int):  # the picture is that channel
        band = picture * SCALE[draw.channels] + OFFSET[draw.channels]
        if draw.erased:
            band[draw.erased] = erased_values(draw.colour)[draw.channels]
        copy_to_channels(out, band)
        return
    rows = out.reshape(h, w * 3)  # a view; numpy is slow on a last axis of 3
    scale, offset = of_row(w)
    np.multiply(picture.reshape(h, w * 3), scale, out=rows)  # (value / 255 - mean) / deviation
    rows += offset
    if draw.erased:
        out[draw.erased] = erased_values(draw.colour)
    if draw.channels == GREY:
        copy_to_channels(out, out @ GREY_WEIGHTS)


def erased_values(colour: tuple[int, int, int] | None) -> Float32[np.ndarray, " 3"]:
    """What normalised pixels become: those of a colour, or the published constant."""
    return ERASED if colour is None else np.array(colour, np.uint8) * SCALE + OFFSET


def copy_to_channels(out: Float32[np.ndarray, "h w 3"], band: Float32[np.ndarray, "h w"]) -> None:
    for channel in range(3):  # three times as fast as broadcasting into a last axis of 3
        out[:, :, channel] = band


@functools.cache
def of_row(width: int) -> tuple[Float32[np.ndarray, " w3"], Float32[np.ndarray, " w3"]]:
    """Scale and offset of each value of a row."""
    return np.tile(SCALE, width), np.tile(OFFSET, width)


def image(
    path: str,
    height: int,
    width: int,
    channels: int | str = ALL,
    upright: bool = False,
    deep_range: Sequence[float | int] = (),
) -> Image.Image:
    """The frame in RGB, or one channel of it, resized with Pillow's antialiased bilinear filter.

    Raises FrameError as `decoded`.
    """
    picture = decoded(path, upright, deep_range)
    if picture.mode not in ("RGB", "L"):
        picture = picture.convert("RGB")
    if isinstance(channels, int) and picture.mode == "RGB":
        picture = picture.getchannel(channels)
    # Channels are resized independently of each other, so that of a grey file one is enough.
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return picture if isinstance(channels, int) else picture.convert("RGB")
