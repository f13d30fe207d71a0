"""Answers of the server are those of the API, to the bit, also of many at a time."""

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import served
import videos
from PIL import Image

from dinogrl_jax.data.video.decoding import video_pictures
from dinogrl_jax.retrieval.server.batches import Batches

MODALITIES = ("visible", "infrared")
FIELDS = ("place", "name", "identity", "camera", "modality", "time", "distance", "false_accepts")


def pictures(number: int) -> list[np.ndarray]:
    """A clip of its own, of one to four frames."""
    rng = np.random.default_rng([7, number])
    return [rng.integers(0, 256, (40 + i, 20, 3), np.uint8) for i in range(1 + number % 4)]


def files(number: int) -> list[tuple[str, bytes]]:
    return [(f"{i}.png", served.png(Image.fromarray(x))) for i, x in enumerate(pictures(number))]


def asked(client, number: int) -> list[dict]:
    answer = client.search(files(number), MODALITIES[number % 2], k=5)
    assert answer.status_code == 200, answer.text
    return answer.json()["found"]


def told(found: list[dict]) -> list[tuple]:
    return [tuple(x[key] for key in FIELDS) for x in found]


def expected(model, gallery, clip, modality: str, k: int = 5, **filters) -> list[tuple]:
    (query,) = model.embed([clip], modality)
    return [tuple(getattr(x, key) for key in FIELDS) for x in gallery.search(query, k, **filters)]


def test_200_searches_in_a_row_and_8_at_a_time(client, model, gallery):
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda n: asked(client, 1000 + n), range(40)))
    for number, found in itertools.chain(
        ((n, asked(client, n)) for n in range(200)), enumerate(together, 1000)
    ):
        modality = MODALITIES[number % 2]
        assert told(found) == expected(model, gallery, pictures(number), modality)
    assert "dinogrl_jax_batch_clips" in client.get("/metrics").text


def test_a_batch_changes_no_bit(model):
    """Alone, at each place of a batch, and beside any others."""
    clips = [pictures(n) for n in range(served.BATCH)]
    alone = [model.embed([clip], "visible")[0] for clip in clips]
    for order in itertools.permutations(range(served.BATCH)):
        made = model.embed([clips[i] for i in order], "visible")
        np.testing.assert_array_equal(made, [alone[i] for i in order])
    kinds = ["visible", "infrared", "visible", "infrared"]
    np.testing.assert_array_equal(model.embed(clips, kinds)[::2], alone[::2])


def test_clips_that_wait_together_go_together():
    sizes, running, go = [], threading.Event(), threading.Event()

    def embed(clips, modalities):
        running.set()
        go.wait()
        values = [int(clip[0].max()) for clip in clips]
        if 2 in values:
            raise ValueError("a bad clip")
        return np.array(values, np.float32)[:, None, None]

    batches = Batches(embed, 3, sizes.append)
    clips = [[np.full((1, 1, 3), i, np.uint8)] for i in range(5)]
    first = batches.descriptor(clips[0], "visible")
    running.wait()
    others = [batches.descriptor(clip, "visible") for clip in clips[1:]]
    go.set()
    assert first.result(60) == 0 and [others[i].result(60).item() for i in (0, 2, 3)] == [1, 3, 4]
    with pytest.raises(ValueError, match="a bad clip"):
        others[1].result(60)
    batches.close()
    assert sizes == [1, 3, 1] and not batches.is_alive()


def test_filters(client, model, gallery, clips):
    clip = served.files_of(clips[3])
    for form, filters in (
        ({"cameras": ["0", "2"]}, {"cameras": [0, 2]}),
        ({"modalities": "visible"}, {"modalities": ["visible"]}),
        ({"since": "1970-01-01T02:00:00Z"}, {"since": 7200}),
        ({"until": "1970-01-01T03:00:00+01:00"}, {"until": 7200}),
    ):
        found = client.search(clip, "infrared", k=50, **form).json()["found"]
        assert told(found) == expected(model, gallery, clips[3], "infrared", 50, **filters)
        assert 0 < len(found) < served.TRACKLETS


def test_what_a_distance_means(client, clips):
    answer = client.search(served.files_of(clips[3]), "infrared", k=12).json()
    words = {x["false_accepts"]: x["meaning"] for x in answer["found"]}
    assert words[0.01] == "≤ 1 %" and set(words) <= {0.01, 0.1, 1.0}
    assert all(x["meaning"] == "> 10 %" for x in answer["found"] if x["false_accepts"] == 1)
    assert answer["found"][0]["distance"] == 0 and answer["tracklets"] == served.TRACKLETS
    assert "share of pairs of different people" in client.get("/gallery").json()["note"]


def test_a_video_and_a_turned_picture(client, model, gallery, tmp_path):
    path = videos.written(tmp_path / "short.mp4", 6)
    frames = [x.pixels() for x in video_pictures(str(path))]
    found = client.search([("short.mp4", path.read_bytes())], k=5).json()
    assert found["frames"] == 6
    assert told(found["found"]) == expected(model, gallery, frames, "visible")

    exif = Image.Exif()
    exif[0x0112] = 6
    content = served.png(Image.fromarray(pictures(1)[0]), "JPEG", exif=exif)
    (tmp_path / "turned.jpg").write_bytes(content)
    found = client.search([("turned.jpg", content)], k=5).json()["found"]
    assert told(found) == expected(model, gallery, [tmp_path / "turned.jpg"], "visible")


def test_grey_pictures_are_read_as_from_disk(client, model, gallery, tmp_path):
    for mode in ("L", "P", "LA", "RGBA", "1", "CMYK"):
        kind = "JPEG" if mode == "CMYK" else "PNG"
        content = served.png(Image.fromarray(pictures(2)[0]).convert(mode), kind)
        (tmp_path / mode).write_bytes(content)
        found = client.search([("x", content)], k=5).json()["found"]
        assert told(found) == expected(model, gallery, [tmp_path / mode], "visible"), mode


def test_the_gallery_and_its_frames(client, clips):
    gallery = client.get("/gallery").json()
    assert gallery["tracklets"] == served.TRACKLETS and gallery["cameras"] == ["0", "1", "2"]
    assert (gallery["first"], gallery["last"]) == (0, 3600 * 11)
    for path in ("/tracklets/2/thumbnail", "/tracklets/2/frames/2"):
        answer = client.get(path)
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.content.startswith(b"\xff\xd8")
    for path in ("/tracklets/12/thumbnail", "/tracklets/12/frames/0", "/tracklets/2/frames/3"):
        served.line(client.get(path), 404)
    served.line(client.get("/tracklets/-1/thumbnail"), 422)
    served.line(client.get(f"/tracklets/{10**30}/thumbnail"), 422)


def test_the_api_describes_itself_without_anything_from_elsewhere(client):
    description = client.get("/openapi.json").json()
    assert description["openapi"].startswith("3.")
    page = client.get("/docs").text
    for path, verbs in description["paths"].items():
        for verb in verbs:
            assert f"{verb.upper()} {path}" in page
    assert "<script" not in page and "http://" not in page and "https://" not in page
    assert "false_accepts" in page and "visible or infrared" in page


def test_health_and_metrics(client, clips):
    assert client.get("/health").json() == {"status": "ok"}
    client.search(served.files_of(clips[0]))
    lines = client.get("/metrics").text.splitlines()
    assert f"dinogrl_jax_tracklets {served.TRACKLETS:.1f}" in lines
    for stage in ("decode", "embed", "search"):
        assert any(
            x.startswith(f'dinogrl_jax_stage_seconds_count{{stage="{stage}"}}') for x in lines
        )
    assert any('path="/search",status="200"' in x for x in lines)
    assert json.loads(client.get("/nothing").text) == {"detail": "Not Found"}
