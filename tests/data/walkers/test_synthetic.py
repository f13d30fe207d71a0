import hashlib
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from dinogrl_jax.config import shared
from dinogrl_jax.data import datasets
from dinogrl_jax.data.walkers import cameras, people, synthetic
from dinogrl_jax.interface.errors import InputError

SMALL = {
    "seed": 4,
    "train_identities": 2,
    "test_identities": 3,
    "tracklets_per_identity": 4,
    "frames_per_tracklet": 3,
    "height": 48,
    "width": 24,
}
FOLDERS = {1: "ir", 2: "rgb"}
NAME = re.compile(r"(\d{4})M([12])D(\d+)T(\d+)F(\d+)\.jpg")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "made"
    synthetic.generate(root, **SMALL, silhouettes=True, workers=0)
    return root


def digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(p.relative_to(root)): hashlib.md5(p.read_bytes()).hexdigest() for p in files}


def rows(root: Path, split: str) -> np.ndarray:
    """Columns modality, start, end, pid, camera."""
    return np.loadtxt(root / f"info/track_{split}_info.txt", dtype=int)


def names(root: Path, split: str) -> list[str]:
    return (root / f"info/{split}_name.txt").read_text().splitlines()


def test_the_number_of_workers_changes_no_byte(root, tmp_path):
    synthetic.generate(tmp_path / "two", **SMALL, silhouettes=True, workers=2)
    assert digests(tmp_path / "two") == digests(root)


def test_another_seed_makes_other_frames(root, tmp_path):
    synthetic.generate(tmp_path / "other", **SMALL | {"seed": 5}, workers=0)
    frames, others = (
        {digest for path, digest in digests(folder).items() if path.endswith(".jpg")}
        for folder in (root, tmp_path / "other")
    )
    assert others and not others & frames


def test_silhouettes_do_not_change_frames(root, tmp_path):
    synthetic.generate(tmp_path / "plain", **SMALL, workers=0)
    plain, full = digests(tmp_path / "plain"), digests(root)
    frames = {path for path in plain if path.endswith(".jpg")}
    assert frames and all(plain[path] == full[path] for path in frames)


@pytest.mark.parametrize("split", ["train", "test"])
def test_tracklets_cover_the_frame_list_without_gaps(root, split):
    modality, start, end, _, _ = rows(root, split).T
    assert start[0] == 1 and end[-1] == len(names(root, split))
    assert (start[1:] == end[:-1] + 1).all()
    assert ((end - start + 1 >= 3) & (end - start + 1 <= 4)).all()
    assert {*modality} == {1, 2}


@pytest.mark.parametrize("split", ["train", "test"])
def test_names_agree_with_rows_and_files(root, split):
    listed = names(root, split)
    paths = set()
    for modality, start, end, pid, camera in rows(root, split):
        fields = [NAME.fullmatch(name).groups() for name in listed[start - 1 : end]]
        assert {tuple(map(int, f[:3])) for f in fields} == {(pid, modality, camera)}
        assert len({f[3] for f in fields}) == 1
        numbers = [int(f[4]) for f in fields]
        assert (np.diff(numbers) == 5).all()
        folder = root / split.capitalize() / f"{pid:04}" / FOLDERS[modality] / f"D{camera}"
        paths |= {folder / f"{n}.jpg" for n in numbers}
    assert len(paths) == len(listed)
    assert paths == set((root / split.capitalize()).rglob("*.jpg"))


def test_row_grammar(root):
    for line in (root / "info/track_test_info.txt").read_text().splitlines():
        assert re.fullmatch(r"[12] \d+ \d+ \d{4} \d+", line)


def test_splits_share_no_identity(root):
    train, test = ({*rows(root, split)[:, 3]} for split in ("train", "test"))
    assert len(train) == 2 and len(test) == 3 and not train & test


def test_queries_are_all_infrared_test_rows_in_one_line(root):
    (line,) = (root / "info/query_IDX.txt").read_text().splitlines()
    infrared = np.flatnonzero(rows(root, "test")[:, 0] == 1) + 1
    assert [int(row) for row in line.split(" ")] == infrared.tolist()


@pytest.mark.parametrize("tracklets", [2, 3, 4, 5, 6, 9])
def test_two_matches_remain_without_the_querys_camera(tracklets):
    settings = SMALL | {"tracklets_per_identity": tracklets, "test_identities": 40}
    passages = synthetic.planned_passages(synthetic.Settings(**settings))
    for query in passages:
        matches = [
            p
            for p in passages
            if p.pid == query.pid and p.modality != query.modality and p.camera != query.camera
        ]
        assert len(matches) >= 2
    assert {p.camera for p in passages} == set(range(1, 13))


def test_tracks_of_one_camera_share_a_folder_and_no_frame():
    passages = synthetic.planned_passages(
        synthetic.Settings(**SMALL | {"tracklets_per_identity": 6})
    )
    places = [(p.pid, p.modality, p.camera) for p in passages]
    assert len(set(places)) < len(places)
    paths = [path for p in passages for path in p.paths()]
    assert len(set(paths)) == len(paths)


def test_frames_have_their_size_and_infrared_ones_no_colour(root):
    for path in root.glob("T*/**/*.jpg"):
        with Image.open(path) as picture:
            assert picture.size == (24, 48)
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        coloured = np.ptp(pixels, axis=-1).max() > 0
        assert coloured == (path.parts[-3] == "rgb")


def test_silhouettes_lie_beside_their_frames(root):
    frames = {p.relative_to(root).with_suffix("") for p in root.glob("T*/**/*.jpg")}
    masks = {p.relative_to(root / "silhouettes").with_suffix(""): p for p in root.rglob("*.png")}
    assert frames == set(masks)
    shares = []
    for path in masks.values():
        with Image.open(path) as picture:
            assert picture.size == (24, 48) and picture.mode == "L"
            shares.append(np.asarray(picture).mean() / 255)
    assert 0.03 < min(shares) and max(shares) < 0.6


def test_the_silhouette_is_where_the_person_is():
    """Where the mask is 0, other clothes' reflectances leave the same pixels."""
    own = cameras.Nuisance(noise=0.0, blur=0.0, occlusion=0.0, redrawn=0.0)
    settings = synthetic.Settings(**SMALL, nuisance=own)
    passage = synthetic.planned_passages(settings)[0]
    pictures, masks = synthetic.passage_pictures(settings, passage)
    disguised = settings._replace(nuisance=own._replace(redrawn=1.0))
    others, _ = synthetic.passage_pictures(disguised, passage)
    assert (pictures[masks == 0] == others[masks == 0]).all()
    assert (pictures != others)[masks > 200].mean() > 0.5


def test_colour_says_nothing_about_infrared():
    drawn = [cameras.random_palette(np.random.default_rng(i)) for i in range(2000)]
    grey = np.array([p["visible"].mean(-1) for p in drawn])
    reflectance = np.array([p["infrared"][:, 0] for p in drawn])
    for material in range(grey.shape[1]):
        # 2000 independent pairs: the correlation's deviation is 0.022, this is four of them.
        assert abs(np.corrcoef(grey[:, material], reflectance[:, material])[0, 1]) < 0.09


def test_mean_intensity_does_not_match_people_across_modalities():
    settings = synthetic.Settings(**SMALL | {"test_identities": 40, "train_identities": 1})
    chosen = {}
    for p in synthetic.planned_passages(settings):
        if p.split == 1:
            chosen.setdefault((p.modality, p.identity), p)
    values = {modality: [] for modality in synthetic.MODALITIES}
    for (modality, _), passage in sorted(chosen.items()):
        pictures, masks = synthetic.passage_pictures(settings, passage._replace(frames=1))
        pictures = pictures.reshape(*masks.shape, -1).mean(-1)
        values[modality].append((pictures * masks).sum() / masks.sum())
    # 40 independent pairs: the correlation's deviation is 0.16, this is three of them.
    assert abs(np.corrcoef(values["infrared"], values["visible"])[0, 1]) < 0.48


def test_mean_shape_matches_people_across_modalities():
    """The nearest width profile is the same person's far more often than one time in twenty."""
    wanted = {"test_identities": 20, "train_identities": 1, "tracklets_per_identity": 2}
    settings = synthetic.Settings(**SMALL | wanted)
    features = {modality: [] for modality in synthetic.MODALITIES}
    people = {modality: [] for modality in synthetic.MODALITIES}
    for passage in synthetic.planned_passages(settings):
        if passage.split == 1:
            _, masks = synthetic.passage_pictures(settings, passage._replace(frames=4))
            features[passage.modality].append(np.median((masks > 127).sum(2), 0))
            people[passage.modality].append(passage.identity)
    query, gallery = (np.stack(features[m]) for m in synthetic.MODALITIES)
    nearest = np.abs(query[:, None] - gallery).sum(-1).argmin(1)
    right = np.array(people["infrared"]) == np.array(people["visible"])[nearest]
    assert 0.2 < right.mean() < 0.95


def test_a_walk_repeats_after_one_cycle_and_keeps_its_feet_on_the_ground():
    who = people.random_person(np.random.default_rng(0))
    phase = np.linspace(0, 1, 9)
    now, later = people.joint_positions(who, phase), people.joint_positions(who, phase + 1)
    for joint in now:
        np.testing.assert_allclose(now[joint], later[joint], atol=1e-9)  # rounding of the phase
    lowest = np.min([now[j][:, 2] for j in now], 0)
    np.testing.assert_allclose(lowest, 0.02 * who.body.height)
    assert np.ptp(now["left ankle"][:, 0]) > 0.3  # metres, a step


def test_limbs_keep_their_lengths():
    who = people.random_person(np.random.default_rng(1))
    joints = people.joint_positions(who, np.linspace(0, 1, 7))
    for side in ("left ", "right "):
        thigh = np.linalg.norm(joints[side + "knee"] - joints[side + "hip"], axis=-1)
        forearm = np.linalg.norm(joints[side + "hand"] - joints[side + "elbow"], axis=-1)
        np.testing.assert_allclose(thigh, who.body.thigh)
        np.testing.assert_allclose(forearm, who.body.arm)


def test_an_existing_folder_is_left_alone(root):
    before = digests(root)
    with pytest.raises(InputError, match=re.escape(str(root)) + ".*delete it or choose another"):
        synthetic.generate(root, **SMALL, workers=0)
    assert digests(root) == before


def test_a_failed_run_leaves_nothing_behind(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(synthetic, "save_pictures", broken)
    with pytest.raises(OSError, match="disk full"):
        synthetic.generate(tmp_path / "made", **SMALL, workers=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["seed", "test_identities", "tracklets_per_identity", "height"])
def test_settings_out_of_range_are_named(tmp_path, key):
    with pytest.raises(InputError, match=key):
        synthetic.generate(tmp_path / "made", **SMALL | {key: -1})


def test_check_accepts_its_own_settings_and_names_the_one_that_differs(root):
    synthetic.check_generated(root, SMALL)
    synthetic.check_generated(root, {"silhouettes": True, "nuisance": cameras.NUISANCE})
    with pytest.raises(InputError, match=r"generator.json: height is 48, not 96"):
        synthetic.check_generated(root, SMALL | {"height": 96})
    with pytest.raises(InputError, match="nuisance"):
        synthetic.check_generated(root, {"nuisance": cameras.Nuisance(noise=2.0)})


def test_check_refuses_what_was_not_generated(tmp_path):
    with pytest.raises(InputError, match="no generated data set"):
        synthetic.check_generated(tmp_path, SMALL)


def test_contact_sheet_shows_a_row_per_person():
    sheet = synthetic.contact_sheet(seed=0, identities=2, frames=3, height=32, width=16)
    assert sheet.size == (4 * (3 * 16 + 4), 2 * 32)


def test_two_that_generate_one_data_set_at_once(tmp_path, monkeypatch):
    size = {"train_identities": 1, "test_identities": 1, "tracklets_per_identity": 2}
    size |= {"seed": 0, "frames_per_tracklet": 1, "height": 16, "width": 8}
    root, write = tmp_path / "people", synthetic.write_data_set

    def overtaken(draft, settings, workers):
        write(draft, settings, workers)
        if not root.exists():
            shutil.copytree(draft, root)

    monkeypatch.setattr(synthetic, "write_data_set", overtaken)
    with pytest.raises(InputError, match="people exists by now: another process has made it"):
        synthetic.generate(root, **size, workers=0)
    assert os.listdir(tmp_path) == ["people"]
    shutil.rmtree(root)
    config = ConfigDict(shared())
    config.data.update(dataset="synthetic", root=str(root), minimum_frames=1)
    config.data.synthetic = ConfigDict(size)
    train, test = datasets.read(config.data)
    assert len(train) == len(test) == 4 and os.listdir(tmp_path) == ["people"]
