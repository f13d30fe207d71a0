"""A synthetic data set of walking people, written in HITSZ-VCM's layout.

People differ in shape: body, clothes, hair, luggage, and how they walk. Colour tells nobody apart:
infrared reflectances are drawn independently of colours, and both are partly drawn anew for each
tracklet (`Nuisance.redrawn`), so colour does not help within one modality either.
"""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dinogrl_jax.data.parallel import map_in_processes
from dinogrl_jax.data.walkers.cameras import (
    CAMERAS,
    NUISANCE,
    Nuisance,
    random_camera,
    random_palette,
    random_shot,
)
from dinogrl_jax.data.walkers.people import Person, person_in_mood, random_person
from dinogrl_jax.data.walkers.render import render_passage
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import draft_of, read_json
from dinogrl_jax.interface.progress import Progress

FORMAT = 2  # to be raised when the same settings make other frames
SPLITS = ("Train", "Test")
MODALITIES = ("infrared", "visible")  # HITSZ-VCM's numbers 1 and 2
FOLDERS = {"infrared": "ir", "visible": "rgb"}
FRAME_STEP = 5  # between the numbers of frames on disk, as in the real data


class Settings(NamedTuple):
    """Everything that decides the bytes of a data set."""

    seed: int
    train_identities: int
    test_identities: int
    tracklets_per_identity: int  # of each modality
    frames_per_tracklet: int  # the minimum; the maximum is half as many more
    height: int  # pixels
    width: int
    silhouettes: bool = False
    nuisance: Nuisance = NUISANCE


class Passage(NamedTuple):
    """A tracklet before it is filmed."""

    split: int  # 0 train, 1 test
    identity: int  # within its split, from 0
    number: int  # within identity and modality, from 0
    pid: int
    modality: str
    camera: int
    track: int  # within its folder, from 1
    first: int  # number of its first frame on disk
    frames: int

    def paths(self) -> list[str]:
        """The files of the frames relative to the root, without extension."""
        place = f"{self.pid:04}/{FOLDERS[self.modality]}/D{self.camera}"
        stop = self.first + FRAME_STEP * self.frames
        return [f"{SPLITS[self.split]}/{place}/{n}" for n in range(self.first, stop, FRAME_STEP)]


def generate(
    root: str | Path,
    *,
    seed: int,
    train_identities: int,
    test_identities: int,
    tracklets_per_identity: int,
    frames_per_tracklet: int,
    height: int,
    width: int,
    silhouettes: bool = False,
    workers: int = 2,
    nuisance: Nuisance = NUISANCE,
) -> None:
    """Write a data set to the new folder `root`; the same settings give the same bytes.

    `tracklets_per_identity` counts each modality; `height` and `width` are pixels; `workers` are
    processes (0 or 1: this one), for which the caller's script has to guard its main block.

    Raises InputError if `root` exists or a setting is out of range.
    """
    settings = Settings(
        seed,
        train_identities,
        test_identities,
        tracklets_per_identity,
        frames_per_tracklet,
        height,
        width,
        silhouettes,
        nuisance,
    )
    check_settings(settings)
    root = Path(root).absolute()
    if os.path.lexists(root):
        raise InputError(f"{root} exists already; delete it or choose another folder")
    try:
        with draft_of(root) as draft:
            draft.mkdir(parents=True)
            write_data_set(draft, settings, workers)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        raise InputError(f"{root} exists by now: another process has made it") from error


def check_generated(root: str | Path, settings: Mapping[str, Any]) -> None:
    """Raise InputError unless `root` was generated with these settings, given by name.

    Settings that are left out may have any value, but the nuisance has to be the default one then.
    """
    path = Path(root) / "generator.json"
    try:
        made = read_json(path, {})
    except InputError as error:
        raise InputError(f"{path} cannot be read; {root} is no generated data set") from error
    for key, value in {"format": FORMAT, "nuisance": NUISANCE, **settings}.items():
        value = value._asdict() if isinstance(value, Nuisance) else value
        if made.get(key) != value:
            raise InputError(
                f"{path}: {key} is {repr(made.get(key))[:60]}, not {value!r}; "
                "delete the folder or choose another"
            )


def check_settings(settings: Settings) -> None:
    """Raise InputError for settings out of range."""
    least = {
        "seed": 0,
        "train_identities": 1,
        "test_identities": 1,
        "tracklets_per_identity": 2,  # a single one could not have matches in two other cameras
        "frames_per_tracklet": 1,
        "height": 16,
        "width": 8,
    }
    for key, bound in least.items():
        if getattr(settings, key) < bound:
            raise InputError(f"{key} is {getattr(settings, key)}; it must be at least {bound}")
    if settings.train_identities + settings.test_identities > 9999:
        raise InputError("train_identities and test_identities exceed 9999, the layout's limit")


def write_data_set(root: Path, settings: Settings, workers: int) -> None:
    """Fill an empty folder with frames, info files and generator.json."""
    passages = planned_passages(settings)
    write_info(root / "info", passages)
    described = settings._asdict() | {"nuisance": settings.nuisance._asdict(), "format": FORMAT}
    (root / "generator.json").write_text(json.dumps(described, indent=2) + "\n")
    people = [list(group) for _, group in groupby(passages, key=lambda p: p.pid)]
    work = partial(write_person, root, settings)
    with Progress(
        f"generating {settings.height}x{settings.width}", frame_count(passages), "frames"
    ) as p:
        for frames in map_in_processes(work, people, workers):
            p.add(frames)


def frame_count(passages: list[Passage]) -> int:
    return sum(p.frames for p in passages)


def planned_passages(settings: Settings) -> list[Passage]:
    """All tracklets in the order of the info files: by split, person, modality and camera."""
    pid, passages = 0, []
    for split, people in enumerate((settings.train_identities, settings.test_identities)):
        for identity in range(people):
            pid += 1
            rng = np.random.default_rng([settings.seed, 3, split, identity])
            for modality, cameras in visited_cameras(rng, settings.tracklets_per_identity).items():
                common = {"split": split, "identity": identity, "pid": pid, "modality": modality}
                passages += modality_passages(rng, common, cameras, settings.frames_per_tracklet)
    return passages


def visited_cameras(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """The cameras of the tracklets of a person, for each modality, sorted.

    Three to six cameras share them evenly, so that at least two tracklets of either modality
    lie outside any one camera: these remain when the protocol drops the query's own camera.
    With two tracklets, each modality has two cameras of its own.
    """
    spread = int(rng.integers(3, 7)) if count > 2 else 4
    cameras = rng.permutation(CAMERAS)[:spread] + 1
    shift = rng.integers(spread) if count > 2 else 2
    places = np.arange(count)
    return {
        "infrared": np.sort(cameras[places % spread]),
        "visible": np.sort(cameras[(places + shift) % spread]),
    }


def modality_passages(
    rng: np.random.Generator, common: dict, cameras: np.ndarray, least: int
) -> Iterator[Passage]:
    """A person's tracklets of one modality; those of one camera share its folder."""
    for number, place in enumerate(cameras.tolist()):
        if number == 0 or place != cameras[number - 1]:
            track, first = 1, 1
        frames = int(rng.integers(least, least * 3 // 2 + 1))
        yield Passage(
            **common, number=number, camera=place, track=track, first=first, frames=frames
        )
        track, first = track + 1, first + FRAME_STEP * (frames + int(rng.integers(4)))


def write_info(folder: Path, passages: list[Passage]) -> None:
    """Write the five text files that list frames, tracklets and queries."""
    folder.mkdir()
    for split, name in enumerate(("train", "test")):
        own = [p for p in passages if p.split == split]
        names = [line for p in own for line in frame_names(p)]
        ends = np.cumsum([p.frames for p in own])
        rows = [
            f"{MODALITIES.index(p.modality) + 1} {end - p.frames + 1} {end} {p.pid:04} {p.camera}"
            for p, end in zip(own, ends, strict=True)
        ]
        (folder / f"{name}_name.txt").write_text("\n".join(names) + "\n")
        (folder / f"track_{name}_info.txt").write_text("\n".join(rows) + "\n")
    queries = [str(row) for row, p in enumerate(own, start=1) if p.modality == "infrared"]
    (folder / "query_IDX.txt").write_text(" ".join(queries) + "\n")


def frame_names(passage: Passage) -> list[str]:
    p = passage
    start = f"{p.pid:04}M{MODALITIES.index(p.modality) + 1}D{p.camera}T{p.track}F"
    return [start + path.rpartition("/")[2] + ".jpg" for path in p.paths()]


def write_person(root: Path, settings: Settings, passages: list[Passage]) -> int:
    """Write all frames of one person; returns their number."""
    for passage in passages:
        pictures, masks = passage_pictures(settings, passage)
        paths = passage.paths()
        save_pictures(root, paths, ".jpg", pictures)
        if settings.silhouettes:
            save_pictures(root / "silhouettes", paths, ".png", masks)
    return frame_count(passages)


def save_pictures(root: Path, paths: list[str], extension: str, pictures: np.ndarray) -> None:
    options = {"quality": 92} if extension == ".jpg" else {"compress_level": 1}
    (root / paths[0]).parent.mkdir(parents=True, exist_ok=True)
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(root / (path + extension), **options)


def passage_pictures(settings: Settings, passage: Passage) -> tuple[np.ndarray, np.ndarray]:
    """A tracklet's pictures, (t, h, w, 3) visible or (t, h, w) infrared, and silhouettes."""
    pictures, masks = render_passage(*filming(settings, passage))
    return (pictures if passage.modality == "visible" else pictures[..., 0]), masks


def filming(settings: Settings, passage: Passage) -> tuple:
    """The arguments of render_passage: who walks how past which camera, in which colours."""
    s, p = settings, passage
    own = np.random.default_rng([s.seed, 0, p.split, p.identity])
    rng = np.random.default_rng(
        [s.seed, 1, p.split, p.identity, MODALITIES.index(p.modality), p.number]
    )
    who = person_in_mood(random_person(own), rng, s.nuisance.mood)
    colours, others = random_palette(own)[p.modality], random_palette(rng)[p.modality]
    redrawn = rng.random((len(colours), 1)) < s.nuisance.redrawn
    size = (s.height, s.width)
    place = random_camera(s.seed, p.camera, size, s.nuisance.clutter)
    passing = random_shot(rng, who, place, p.frames, size, s.nuisance)
    worn = np.where(redrawn, others, colours)
    return who, place, passing, p.modality, worn, rng, size


def person_of(settings: Settings, passage: Passage) -> Person:
    """Who walks in a passage, but for the mood of the day."""
    rng = np.random.default_rng([settings.seed, 0, passage.split, passage.identity])
    return random_person(rng)


def contact_sheet(
    *,
    seed: int,
    identities: int = 8,
    frames: int = 6,
    height: int = 96,
    width: int = 48,
    nuisance: Nuisance = NUISANCE,
) -> Image.Image:
    """A picture with a row per test identity: a visible tracklet, an infrared one, silhouettes."""
    settings = Settings(seed, 1, identities, 3, frames, height, width, True, nuisance)
    rows = []
    for identity in range(identities):
        own = [p for p in planned_passages(settings) if p.split == 1 and p.identity == identity]
        infrared = own[0]
        visible = next(p for p in own[3:] if p.camera != infrared.camera)
        filmings = [passage_pictures(settings, p) for p in (visible, infrared)]
        pictures = [kind[:frames] for kinds in zip(*filmings, strict=True) for kind in kinds]
        rows.append(np.concatenate([picture_row(row) for row in pictures], 1))
    return Image.fromarray(np.concatenate(rows, 0))


def picture_row(pictures: np.ndarray) -> np.ndarray:
    """Pictures (t, h, w) or (t, h, w, 3) in one row (h, t * w + 4, 3), with a white margin."""
    if pictures.ndim == 3:
        pictures = np.repeat(pictures[..., None], 3, -1)
    row = np.concatenate(list(pictures), 1)
    return np.pad(row, ((0, 0), (0, 4), (0, 0)), constant_values=255)
