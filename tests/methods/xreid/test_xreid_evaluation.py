"""X-ReID's frames and figures as the published code has them, from the method's own settings."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from PIL import Image

from dinogrl_jax.data import sampling, transforms
from dinogrl_jax.interface.checks import checked_config
from dinogrl_jax.interface.config_files import read_config
from dinogrl_jax.methods import default, xreid
from dinogrl_jax.methods.xreid.model import DESCRIPTORS, Output
from dinogrl_jax.retrieval import scoring
from dinogrl_jax.retrieval.directions import Direction, direction_results
from dinogrl_jax.retrieval.embedding import configured_options
from dinogrl_jax.retrieval.gallery import descriptor_set, no_junk, same_camera
from dinogrl_jax.retrieval.protocols import filters_cameras

ROOT = Path(__file__).parents[3]
CONFIG = default("xreid")
DIRECTIONS = ("infrared_to_visible", "visible_to_infrared")
COLUMNS = {
    "class": slice(10),
    "projected": slice(10, 16),
    "interactions": slice(16, 24),
}  # of golden ones


@pytest.fixture(scope="module")
def golden():
    return np.load(ROOT / "tests/golden/clip_components.npz")


@pytest.mark.parametrize(
    "name", ["xreid_vcm", "xreid_bupt", "xreid_paper_vcm", "xreid_paper_bupt", "synthetic_xreid"]
)
def test_the_configurations_are_usable(name):
    config = checked_config(read_config(str(ROOT / "configs" / f"{name}.py")))
    assert config.method == "xreid" and config.evaluation.distance == "cosine"


@pytest.mark.parametrize("variant", DESCRIPTORS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_figures(golden, variant, direction):
    """Of each published variant, normalised as a whole, without the query's own camera."""
    config = read_config(str(ROOT / "configs" / "xreid_vcm.py"))
    config.evaluation.descriptor = variant
    e = config.evaluation
    junk = same_camera if filters_cameras(e.protocol, e.camera_filter) else no_junk

    def descriptors(modality: str):
        whole = golden[f"rank_{modality}"]
        normed = {name: jnp.asarray(whole[:, columns]) for name, columns in COLUMNS.items()}
        found = np.asarray(xreid.descriptor(Output({}, normed, {}, {}), config))
        assert found.shape[1] == len(xreid.part_names(config)) == 1
        return descriptor_set(found, *(golden[f"rank_{modality}_{x}"] for x in ("pid", "camera")))

    query, gallery = (descriptors(modality) for modality in direction.split("_to_"))
    found = {direction: Direction(query, gallery, junk)}
    result = direction_results(found, distance=e.distance)[direction]
    expected = f"rank_xreid_{variant.lower()}_{direction}"
    # The published CMC is float32.
    np.testing.assert_allclose(result.cmc[:20], golden[f"{expected}_cmc"][:20], atol=1e-7)
    np.testing.assert_allclose(result.mAP, golden[f"{expected}_mAP"], rtol=1e-12)


@pytest.mark.parametrize("of", ["V0", "V2"])
def test_variants_are_channels_of_one_descriptor(golden, of):
    config = CONFIG.copy_and_resolve_references()
    config.model.clip.update({"width": 8, "embedding": 6})
    normed = {
        name: jnp.asarray(golden["rank_visible"][:, channels][:, : 6 if name == "projected" else 8])
        for name, channels in COLUMNS.items()
    }

    def descriptor(variant: str) -> np.ndarray:
        config.evaluation.descriptor = variant
        return np.asarray(xreid.descriptor(Output({}, normed, {}, {}), config))

    expected = {variant: descriptor(variant) for variant in DESCRIPTORS}
    whole = descriptor(of)
    found = xreid.descriptor_variants(config)
    assert found.keys() == ({*DESCRIPTORS} if of == "V0" else {"V1", "V2", "V3"})
    for variant, channels in found.items():
        np.testing.assert_array_equal(whole[..., channels], expected[variant])
    config.model.sii.on, config.evaluation.descriptor = False, "V0"
    assert [*xreid.descriptor_variants(config)] == ["V0", "V1", "V2"]  # nothing interacts


@pytest.mark.parametrize("protocol", ["bupt-full", "bupt-transposed"])
def test_buptcampus_by_its_own_protocol_and_as_released(golden, protocol):
    """Released: the published figures of infrared queries and the visible gallery, both ways, on
    which other tracklets have no influence. Its own: all four sets, and no rule about cameras.
    """
    config = read_config(str(ROOT / "configs" / "xreid_bupt.py"))
    config.evaluation.protocol = protocol
    rng, sets = np.random.default_rng(0), {}
    for modality, role in (("infrared", "query"), ("visible", "gallery")):
        x, identity, camera = (golden[f"rank_{modality}{end}"] for end in ("", "_pid", "_camera"))
        sets[modality, role] = x, identity, camera
        mine = rng.permutation(len(x))[:30]
        other = "gallery" if role == "query" else "query"
        noise = rng.normal(size=(30, x.shape[1])).astype(x.dtype)
        sets[modality, other] = x[mine] + noise, identity[mine], camera[mine]
    embedding, identity, camera = (np.concatenate(x) for x in zip(*sets.values(), strict=True))
    words = [(m, r) for (m, r), x in sets.items() for _ in x[0]]
    modality, role = (np.array(x) for x in zip(*words, strict=True))
    columns = {"identity": identity, "camera": camera, "modality": modality, "role": role}
    found = scoring.evaluation_of(embedding, columns, configured_options(config)).results
    for direction in DIRECTIONS:
        result, (asking, asked) = found[direction], direction.split("_to_")
        if protocol == "bupt-transposed":
            expected = f"rank_xreid_v0_{direction}"
            cmc, mean = golden[f"{expected}_cmc"][:20], golden[f"{expected}_mAP"]
        else:
            (q, *query), (g, *gallery) = sets[asking, "query"], sets[asked, "gallery"]
            distance = oracle.distances("cosine", q, g)
            cmc, mean, *_ = oracle.figures(distance, *query, *gallery, camera_filter=False)
        np.testing.assert_allclose(result.cmc[:20], cmc, atol=1e-7)  # the published is float32
        np.testing.assert_allclose(result.mAP, mean, rtol=1e-12)


def test_frames(golden):
    """Of tracklets of 1 … 60 frames, sampled once or densely."""
    once, dense = (sampling.TEST_CLIPS[name] for name in (CONFIG.data.test_frames, "dense"))
    frames, all_dense = CONFIG.data.frames, []
    for n, expected in enumerate(golden["frames_first_per_chunk_10"], start=1):
        (found,) = once(n, frames)
        np.testing.assert_array_equal(found, expected)
        all_dense.append(dense(n, frames))
        assert len(all_dense[-1]) == golden["frames_dense_clips"][n - 1]
    np.testing.assert_array_equal(np.concatenate(all_dense), golden["frames_dense_10"])


def test_training_frames_from_their_draws(golden, tmp_path):
    """Flips of clips and blocks of frames, over Pillow's resizing."""
    blocks = 0
    for clip, flip in enumerate(golden["augment_flip"]):
        for i, frame in enumerate(golden["augment_in"][clip]):
            path = tmp_path / "frame.png"
            Image.fromarray(frame).save(path)
            out = np.empty((72, 36, 3), np.float32)
            draw = transforms.Draw(flip=bool(flip))
            h, w, *colour = golden["augment_block"][clip, i].tolist()
            if h >= 0:
                place = transforms.block_place(h, w, 72, 36)
                draw = draw._replace(erased=place, colour=tuple(colour))
                blocks += 1
            transforms.fill_frame(out, str(path), draw)
            expected = golden["augment_out"][clip, i]
            # Values up to 2.7 in float32: (x / 255 − mean) / deviation is one product here.
            np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)
    assert blocks > 5


def test_training_frames_are_drawn_as_published():
    """A flip for a clip, a block for every second frame, no crop and no mixture of channels."""
    augment = transforms.Augment(**CONFIG.augment)
    assert (augment.flip, augment.erase, augment.pad, augment.channels) == (0.5, 0.5, 0, False)
    rng = np.random.default_rng(0)
    clips = [transforms.draws(10, 288, 144, "infrared", augment, rng) for _ in range(400)]
    assert all(len({draw.flip for draw in clip}) == 1 for clip in clips)
    assert 150 < sum(clip[0].flip for clip in clips) < 250
    frames = [draw for clip in clips for draw in clip]
    drawn = [draw for draw in frames if draw.erased]
    assert 1800 < len(drawn) < 2200 and all(draw.colour for draw in drawn)
    boxes = [(rows, columns) for rows, columns in (draw.erased for draw in drawn)]
    areas = [(r.stop - r.start) * (c.stop - c.start) / (288 * 144) for r, c in boxes]
    assert 0.092 < np.mean(areas) < 0.102  # 9.7 % of 4,000 draws of the published code
    assert min(r.start for r, _ in boxes) >= 15 and min(c.start for _, c in boxes) >= 12
    covered = np.zeros((288, 144))
    for rows, columns in boxes:
        covered[rows, columns] += 1 / len(frames)
    quadrants = covered.reshape(2, 144, 2, 72).mean((1, 3)) * 100
    np.testing.assert_allclose(quadrants, [[3.8, 5.8], [4.3, 5.5]], atol=0.5)  # percent, published
