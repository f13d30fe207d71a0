"""Small data sets in HITSZ-VCM's layouts, built by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from small_batches import AUGMENT

from dinogrl_jax import config as configuration
from dinogrl_jax.data.readers import vcm
from dinogrl_jax.data.tracklets import Tracklet

INFO = {"A": "info", "B": "Info", "C": ""}


class Tree:
    """A data set of two training and two test identities, on the cameras 3 and 11.

    Each has, in either modality, two tracks of 12 frames, which share the folder of camera 11, and
    one of 14 on camera 3: 12 rows a split. In a test the rows 4 to 6 and 10 to 12 are visible.
    """

    def __init__(self, root: Path, layout: str = "A"):
        self.root = root
        self.layout = layout
        self.lines: dict[str, list[str]] = {}
        for split, identities in (("train", (1, 2)), ("test", (503, 1004))):
            self.lines[f"{split}_name.txt"] = names = []
            self.lines[f"track_{split}_info.txt"] = rows = []
            for identity in identities:
                for modality in (1, 2):
                    for camera, track, frames in ((11, 1, 12), (11, 2, 12), (3, 1, 14)):
                        start, end = len(names) + 1, len(names) + frames
                        rows.append(f"{modality} {start} {end} {identity:04d} {camera}")
                        prefix = f"{identity:04d}M{modality}D{camera}T{track}F"
                        numbers = range(90 * track + 1, 90 * track + 1 + 5 * frames, 5)
                        names += [f"{prefix}{number}.jpg" for number in numbers]
        self.lines["query_IDX.txt"] = ["1 2 3 7 8 9"]

    def folder(self, split: str) -> Path:
        return self.root / (split.title() if self.layout == "A" else "")

    def info(self, name: str) -> Path:
        return self.root / INFO[self.layout] / name

    def write(self) -> str:
        """Write the info files and empty folders of the identities; the path of the root."""
        (self.root / INFO[self.layout]).mkdir(parents=True, exist_ok=True)
        for split, identities in (("train", (1, 2)), ("test", (503, 1004))):
            for identity in identities:
                (self.folder(split) / f"{identity:04d}").mkdir(parents=True, exist_ok=True)
        for name, lines in self.lines.items():
            self.info(name).write_text("\n".join(lines) + "\n")
        return str(self.root)

    def write_with_frames(self, height: int = 12, width: int = 8) -> str:
        """Write everything; each frame is of one random colour."""
        rng = np.random.default_rng(0)
        for split in ("train", "test"):
            for name in self.lines[f"{split}_name.txt"]:
                colour = rng.integers(256, size=3)
                path = self.folder(split) / path_of(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (width, height), tuple(colour.tolist())).save(path)
        return self.write()


def path_of(name: str) -> str:
    """What the published readers make of a name."""
    camera, _, rest = name[7:].partition("T")
    return f"{name[:4]}/{'ir' if name[5] == '1' else 'rgb'}/D{camera}/{rest.partition('F')[2]}"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "vcm")


@pytest.fixture
def tree_of(tmp_path: Path) -> Callable[[str], Tree]:
    return lambda layout: Tree(tmp_path / "vcm", layout)


@pytest.fixture
def config() -> ConfigDict:
    """Settings of all methods for frames of 16×8 pixels, three a tracklet."""
    settings = ConfigDict(configuration.shared())
    settings.data.update(height=16, width=8, frames=3, workers=0)
    settings.data.update(identities_per_batch=2, tracklets_per_identity=2)
    settings.augment = ConfigDict(AUGMENT)
    settings.evaluation.tracklets_per_batch = 4
    return settings


@pytest.fixture
def split(tree) -> tuple[list[Tracklet], list[Tracklet]]:
    """The training and the test tracklets, with frames on disk."""
    return vcm.read_splits(tree.write_with_frames())
