"""Manifests of a few small pictures, written line by line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dinogrl_jax.config import shared

MODALITIES = ("visible", "infrared")


def lines(train: int = 3, test: int = 2, frames: int = 3) -> list[dict]:
    """Four lines for each identity: of both modalities, from cameras 1 and 2."""
    people = range(1, train + test + 1)
    seen = [(who, camera, m) for who in people for camera in (1, 2) for m in MODALITIES]
    return [
        {
            "frames": [f"{frames * place + number}.png" for number in range(frames)],
            "identity": identity,
            "camera": camera,
            "modality": modality,
            "split": "train" if identity <= train else "test",
        }
        for place, (identity, camera, modality) in enumerate(seen)
    ]


def written(
    folder: Path, content: list[dict], change: Callable[[dict], dict] = lambda line: line
) -> str:
    """The path of a manifest of changed lines, beside the pictures that the lines had before."""
    rng = np.random.default_rng(0)
    for name in (name for line in content for name in line["frames"]):
        Image.fromarray(rng.integers(0, 256, (16, 8, 3), np.uint8)).save(folder / name)
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(change(line)) + "\n" for line in content))
    return str(path)


def section(root: str, **settings) -> ConfigDict:
    """The section `data` of a configuration of the manifest."""
    data = ConfigDict(shared()).data
    settings = {"minimum_frames": 1, "identities_per_batch": 2, "frames": 2, **settings}
    data.update(dataset="manifest", root=root, **settings)
    return data
