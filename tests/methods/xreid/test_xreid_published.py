"""A released X-ReID at full size through the scripts: file in, descriptors, file out."""

import json
import tempfile
from pathlib import Path

import fill
import numpy as np
import torch
from commands import OPTIMISED, ROOT, script
from PIL import Image

from dinogrl_jax.methods import default, xreid
from dinogrl_jax.weights.rules import Rule

MANIFEST = json.loads((ROOT / "tests/golden/xreid_manifest.json").read_text())["best_model.pth.tar"]


def test_file_in_descriptors_out_and_file_again(record_property):
    golden = np.load(ROOT / "tests/golden/xreid_eval.npz")
    with tempfile.TemporaryDirectory() as place:  # pytest would keep 2 GiB for three runs
        folder = Path(place)
        seed, published = int(golden["seed"]), folder / "best_model.pth.tar"
        state = {k: fill.parameter(f"best_model.pth.tar:{k}", tuple(s), seed) for k, s in MANIFEST}
        torch.save({key: torch.from_numpy(array) for key, array in state.items()}, published)
        made, back, features = (folder / name for name in ("made", "back", "features.npz"))
        given = ("--from", "xreid", "--model", published, "--out", made)
        report(record_property, "conversion in", script("convert.py", *given, **OPTIMISED))
        source = ("--checkpoint", made, "--tracklets", written_frames(folder, golden))
        extraction = script("extract.py", *source, "--out", features, **OPTIMISED)
        report(record_property, "descriptors", extraction)
        embedding = np.load(features)["embedding"]
        assert embedding.shape == (2, 1, 2048) and embedding.dtype == np.float32
        difference = np.abs(embedding.reshape(2, -1) - golden["features"]).max()
        assert difference < 2e-5 * golden["features"].std()  # as in xreid_fidelity.py
        given = ("--to", "torch", "--checkpoint", made, "--out", back)
        report(record_property, "conversion out", script("convert.py", *given, **OPTIMISED))
        check_exported(state, torch.load(back / "best_model.pth.tar", weights_only=True))


def report(record_property, what, done):
    assert done.status == 0, done.errors
    record_property(what, f"{done.seconds:.1f} s, {done.gib:.2f} GiB")


def written_frames(folder, golden):
    """The golden tracklets as PNG files, and their manifest."""
    lines = []
    for i, frame in enumerate(fill.frames(20, 288, 144, int(golden["frames_seed"]))):
        Image.fromarray(frame).save(folder / f"{i}.png")
    for v, camera in enumerate(golden["cameras"].tolist()):
        names = [f"{i}.png" for i in range(10 * v, 10 * v + 10)]
        # The golden cameras count from 0, those of the data set from 1.
        known = {"identity": v, "camera": camera + 1}
        lines.append(json.dumps({"frames": names, "modality": "visible", **known}))
    (folder / "tracklets.jsonl").write_text("\n".join(lines))
    return folder / "tracklets.jsonl"


def check_exported(state, again):
    """Every tensor that anything reads is there bit for bit, and the others with their shapes."""
    (file,) = xreid.released_files(default("xreid")).values()
    assert {k: list(v.shape) for k, v in again.items()} == dict(MANIFEST)
    for key, tensor in again.items():
        assert tensor.numpy().dtype == state[key].dtype
        rule = next(rule for rule in file.rules if rule.match_key(key) is not None)
        if isinstance(rule, Rule):
            np.testing.assert_array_equal(tensor.numpy(), state[key], err_msg=key)
