from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinogrl_jax.data import transforms
from dinogrl_jax.data.augmentations import AUGMENTATIONS, Drawn
from dinogrl_jax.data.transforms import ALL, DEVIATION, GREY, MEAN, Augment, Draw
from dinogrl_jax.interface.errors import InputError

PUBLISHED = Augment(pad=10, flip=0.5, erase=0.5, channels=True, clip_consistent=False)
ROUNDING = 3e-6  # of values up to 2.7 in float32, through a multiplication and an addition


@pytest.fixture
def picture(tmp_path) -> tuple[str, np.ndarray]:
    """A noisy RGB file of 60 x 37 pixels, and its values."""
    values = np.random.default_rng(0).integers(256, size=(60, 37, 3), dtype=np.uint8)
    path = tmp_path / "frame.png"
    Image.fromarray(values).save(path)
    return str(path), values


def frame(path: str, height: int, width: int, draw: Draw = Draw()) -> np.ndarray:  # noqa: B008
    out = np.full((height, width, 3), np.nan, np.float32)
    transforms.fill_frame(out, path, draw)
    return out


def published(values: np.ndarray, height: int, width: int, draw: Draw, pad: int) -> np.ndarray:
    """The transforms one after the other on arrays, as torchvision and DinoGRL have them."""
    resized = np.asarray(Image.fromarray(values).resize((width, height), Image.BILINEAR))
    padded = np.pad(resized, ((pad, pad), (pad, pad), (0, 0)))
    top, left = pad + draw.down, pad + draw.right
    result = padded[top : top + height, left : left + width]
    result = result[:, ::-1] if draw.flip else result
    result = (result / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    if draw.erased:
        result[draw.erased] = [0.4914, 0.4822, 0.4465]
    if draw.channels == GREY:
        result = np.repeat(result @ [[0.2989], [0.5870], [0.1140]], 3, axis=2)
    elif draw.channels != ALL:
        result = np.repeat(result[:, :, draw.channels, None], 3, axis=2)
    return result


@pytest.mark.parametrize("size", [(60, 37), (24, 12), (96, 48)], ids=["same", "down", "up"])
def test_a_test_frame_is_resized_by_pillow_and_normalised(picture, size):
    path, values = picture
    expected = published(values, *size, Draw(), pad=0)
    np.testing.assert_allclose(frame(path, *size), expected, atol=ROUNDING)


@pytest.mark.parametrize("modality", ["visible", "infrared"])
def test_drawn_frames_equal_the_published_order_of_transforms(picture, modality):
    path, values = picture
    rng = np.random.default_rng(1)
    drawn = [d for _ in range(8) for d in transforms.draws(6, 48, 24, modality, PUBLISHED, rng)]
    seen = {draw.channels for draw in drawn}
    assert seen == ({0, 1, 2, GREY, ALL} if modality == "infrared" else {0, 1, 2, ALL})
    for draw in drawn:
        expected = published(values, 48, 24, draw, pad=10)
        np.testing.assert_allclose(frame(path, 48, 24, draw), expected, atol=ROUNDING)


def test_a_window_moved_off_the_picture_is_zero_before_normalisation(picture):
    black = -np.array([0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    moved = frame(picture[0], 60, 37, Draw(down=-10, right=10))
    np.testing.assert_allclose(moved[:10], np.broadcast_to(black, (10, 37, 3)), atol=ROUNDING)
    np.testing.assert_allclose(moved[:, 27:], np.broadcast_to(black, (60, 10, 3)), atol=ROUNDING)
    np.testing.assert_array_equal(moved[10:, :27], frame(picture[0], 60, 37)[:-10, 10:])


def draws(clips: int, modality: str = "visible", **changes) -> list[list[Draw]]:
    rng = np.random.default_rng(2)
    augment = PUBLISHED._replace(**changes)
    return [transforms.draws(6, 256, 128, modality, augment, rng) for _ in range(clips)]


def test_probabilities_of_shift_flip_and_erasing():
    drawn = [draw for clip in draws(1000) for draw in clip]
    n = len(drawn)
    for shifts in ([draw.down for draw in drawn], [draw.right for draw in drawn]):
        assert (min(shifts), max(shifts)) == (-10, 10)
        assert np.allclose(np.bincount(np.add(shifts, 10)), n / 21, atol=5 * np.sqrt(n / 21))
    deviation = np.sqrt(n) / 2
    assert abs(sum(draw.flip for draw in drawn) - n / 2) < 5 * deviation
    assert abs(sum(draw.erased is not None for draw in drawn) - n / 2) < 5 * deviation
    assert np.corrcoef([draw.flip for draw in drawn], [draw.down for draw in drawn])[0, 1] < 0.1


@pytest.mark.parametrize("channels", [ALL, 1, GREY])
def test_a_block_has_the_colour_that_its_pixels_had(picture, channels):
    """Before they were normalised and mixed: as if they had been in the file."""
    path, values = picture
    place = transforms.block_place(20, 9, 60, 37)
    assert place == (slice(20, 40), slice(9, 18))
    draw = Draw(erased=place, colour=(3, 250, 77), channels=channels)
    found = frame(path, 60, 37, draw)
    values[place] = (3, 250, 77)
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(found, frame(path, 60, 37, Draw(channels=channels)))


def test_a_block_is_cut_by_the_border():
    assert transforms.block_place(40, 30, 60, 37) == (slice(40, 60), slice(30, 37))


def test_one_flip_for_a_clip_leaves_the_rest_to_frames():
    augment = PUBLISHED._replace(flip_clip=True, erase_rule="block-at-own-size")
    rng = np.random.default_rng(0)
    clips = [transforms.draws(6, 256, 128, "visible", augment, rng) for _ in range(60)]
    assert all(len({draw.flip for draw in clip}) == 1 for clip in clips)
    assert {clip[0].flip for clip in clips} == {True, False}
    assert any(len({draw.colour for draw in clip}) > 3 for clip in clips)
    with pytest.raises(InputError, match="augment.erase_rule"):
        transforms.draws(6, 256, 128, "visible", augment._replace(erase_rule="star"), rng)


def test_erased_boxes_lie_within_the_frame_and_the_published_bounds():
    drawn = [draw for clip in draws(300, erase=1.0) for draw in clip]
    assert {draw.colour for draw in drawn} == {None}
    boxes = [draw.erased for draw in drawn]
    shapes = np.array([(rows.stop - rows.start, cols.stop - cols.start) for rows, cols in boxes])
    shares, aspects = shapes.prod(1) / (256 * 128), shapes[:, 0] / shapes[:, 1]
    assert 0.015 < shares.min() < 0.03 and 0.35 < shares.max() < 0.41
    assert 0.28 < aspects.min() < 0.4 and 3 < aspects.max() < 3.5
    assert all(rows.start >= 0 and rows.stop <= 256 for rows, _ in boxes)
    assert all(cols.start >= 0 and cols.stop <= 128 for _, cols in boxes)


def test_a_visible_clip_tosses_one_coin_and_infrared_frames_one_each():
    clips = [[draw.channels for draw in clip] for clip in draws(1000)]
    unchanged = [clip for clip in clips if ALL in clip]
    assert all(clip == [ALL] * 6 for clip in unchanged)
    assert abs(len(unchanged) - 500) < 5 * np.sqrt(250)
    copied = [channel for clip in clips if ALL not in clip for channel in clip]
    assert np.allclose(np.bincount(copied), len(copied) / 3, atol=5 * np.sqrt(len(copied) / 4))
    infrared = [draw.channels for clip in draws(1000, "infrared") for draw in clip]
    counts = [infrared.count(channels) for channels in (0, 1, 2, GREY, ALL)]
    assert np.allclose(counts, [1500, 1500, 1500, 750, 750], atol=5 * np.sqrt(1125))


def test_clip_consistent_draws_all_but_the_channels_once():
    clips = draws(50, "infrared", clip_consistent=True)
    for clip in clips:
        assert len({(draw.down, draw.right, draw.flip, str(draw.erased)) for draw in clip}) == 1
    assert any(len({draw.channels for draw in clip}) > 2 for clip in clips)
    loose = draws(50, "infrared")
    assert any(len({draw.down for draw in clip}) > 2 for clip in loose)


def test_augmentation_can_be_switched_off():
    off = draws(5, "infrared", pad=0, flip=0.0, erase=0.0, channels=False)
    assert {draw for clip in off for draw in clip} == {Draw()}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_other_kinds_of_images_become_rgb(picture, tmp_path, mode):
    converted = Image.fromarray(picture[1]).convert(mode)
    path = tmp_path / ("image.jpg" if mode in ("CMYK", "YCbCr") else "image.png")
    converted.save(path, quality=100, subsampling=0)
    expected = published(np.asarray(converted.convert("RGB")), 60, 37, Draw(), pad=0)
    difference = np.abs(frame(str(path), 60, 37) - expected).mean()
    assert difference < (0.02 if path.suffix == ".jpg" else ROUNDING)  # JPEG: about 1 of 255


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.full((20, 10), 40_000, np.uint16)).save(path)


@pytest.mark.parametrize("name", ["frame.jpg", "frame.png"])
@pytest.mark.parametrize(
    "damage, words",
    [
        (truncated, "damaged image"),
        (lambda path: path.write_text("not an image"), "not an image"),
        (lambda path: path.write_bytes(b""), "not an image"),
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: (path.unlink(), path.mkdir()), "damaged image"),
        (lambda path: (path.unlink(), path.symlink_to(path.name)), "damaged image"),
    ],
)
def test_unreadable_files_are_named(tmp_path, picture, name, damage, words):
    path = tmp_path / f"bad_{name}"
    Image.fromarray(picture[1]).save(path)
    damage(path)
    with pytest.raises(InputError, match=words) as caught:
        frame(str(path), 24, 12)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_sixteen_bit_images_are_refused(tmp_path):
    path = tmp_path / "deep.png"
    sixteen_bits(path)
    with pytest.raises(InputError, match="deep.png has more than 8 bits"):
        frame(str(path), 24, 12)


NAMED = ("brightness 0.4", "contrast 0.3", "blur 1")


def test_further_augmentations_leave_the_other_draws_alone(picture):
    plain = transforms.draws(6, 24, 12, "infrared", PUBLISHED, np.random.default_rng(3))
    more = PUBLISHED._replace(also=("brightness 0",))
    assert transforms.draws(6, 24, 12, "infrared", more, np.random.default_rng(3)) == plain
    more = PUBLISHED._replace(also=NAMED)
    drawn = transforms.draws(6, 24, 12, "infrared", more, np.random.default_rng(3))
    assert [d._replace(also=()) for d in drawn] == plain
    assert [[one.name for one in d.also] for d in drawn] == [["brightness", "contrast", "blur"]] * 6
    assert len({one.seed for d in drawn for one in d.also}) == 18
    same = more._replace(clip_consistent=True)
    drawn = transforms.draws(6, 24, 12, "infrared", same, np.random.default_rng(3))
    assert len({d.also for d in drawn}) == 1


@pytest.mark.parametrize("channels", [ALL, 1, GREY])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_changes_a_frame_and_is_repeatable(picture, name, channels):
    path, _ = picture
    draw = Draw(channels=channels, also=(Drawn(name, 0.9, 7),))
    changed, plain = frame(path, 24, 12, draw), frame(path, 24, 12, Draw(channels=channels))
    assert np.isfinite(changed).all() and abs(changed - plain).max() > 0.05
    np.testing.assert_array_equal(frame(path, 24, 12, draw), changed)


def test_brightness_is_a_factor(picture):
    path, _ = picture
    strength, seed = 0.4, 11
    factor = np.random.default_rng(seed).uniform(0.6, 1.4)
    found = frame(path, 24, 12, Draw(also=(Drawn("brightness", strength, seed),)))
    values = (frame(path, 24, 12) * DEVIATION + MEAN) * factor
    # Pillow cuts the product off behind the point, and at 255.
    found = found * DEVIATION + MEAN
    np.testing.assert_allclose(found, np.minimum(values, 1), atol=1.01 / 255)


def test_an_augmentation_of_ones_own_is_one_function(picture, monkeypatch):
    path, _ = picture
    monkeypatch.setitem(
        AUGMENTATIONS, "black", lambda picture, strength, rng: picture.point(lambda value: 0)
    )
    found = frame(path, 24, 12, Draw(also=(Drawn("black", 1.0, 0),)))
    np.testing.assert_allclose(found[0, 0], -MEAN / DEVIATION, rtol=1e-6)
