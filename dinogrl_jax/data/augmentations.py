"""Changes of a training frame's picture beside the published ones, by name.

    --config.augment.also="('brightness 0.3', 'blur 0.5')"

A function that is added to AUGMENTATIONS in this file (worker processes read it anew) can be named
in that setting. It gets the resized picture (RGB, or L where one channel alone is kept), the
strength (0 to 1), and random numbers that depend on the seed, the step and the frame alone; it
returns a picture of the same size and mode.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

WIDEST = 2.0  # deviation of a blur, in pixels

Augmentation = Callable[[Image.Image, float, np.random.Generator], Image.Image]


class Drawn(NamedTuple):
    """An augmentation, its strength, and the seed of its random numbers."""

    name: str
    strength: float
    seed: int


def brightness(picture: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Values times 1 − strength to 1 + strength. Source: torchvision.transforms.ColorJitter."""
    return ImageEnhance.Brightness(picture).enhance(rng.uniform(1 - strength, 1 + strength))


def contrast(picture: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Distances to the mean grey times 1 − strength to 1 + strength. Source: as brightness."""
    return ImageEnhance.Contrast(picture).enhance(rng.uniform(1 - strength, 1 + strength))


def blur(picture: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """With probability `strength` a Gaussian of up to two pixels' deviation."""
    if rng.random() >= strength:
        return picture
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, WIDEST)))


AUGMENTATIONS: dict[str, Augmentation] = {
    "brightness": brightness,
    "contrast": contrast,
    "blur": blur,
}


def drawn_augmentations(also: Sequence[str], rng: np.random.Generator) -> tuple[Drawn, ...]:
    """The augmentations of a frame, from the setting's words; those of strength 0 are left out."""
    given = [one.split() for one in also]
    return tuple(
        Drawn(name, float(strength), int(rng.integers(2**63)))
        for name, strength in given
        if float(strength)
    )


def augmented_picture(picture: Image.Image, what: Sequence[Drawn]) -> Image.Image:
    """The picture after each of the augmentations, in order."""
    for name, strength, seed in what:
        picture = AUGMENTATIONS[name](picture, strength, np.random.default_rng(seed))
    return picture
