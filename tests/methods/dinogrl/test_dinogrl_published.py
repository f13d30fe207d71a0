"""A released DinoGRL at full size through the scripts: files in, descriptors, files out."""

import json
import tempfile
from pathlib import Path

import fill
import numpy as np
import torch
from commands import OPTIMISED, ROOT, script
from PIL import Image

from dinogrl_jax.methods import default, dinogrl

MANIFEST = json.loads((ROOT / "tests/golden/dinogrl_manifest.json").read_text())
FILES = {"model": "best_model.pth", "pbmge": "best_model2.pth", "gait": "best_shape.pth"}

INITIAL = {  # of what no forward uses: the published code's initial values
    "mask_token": 0,
    "GAP.p": 3,
    "running_mean": 0,
    "running_var": 1,
    "layers.1.weight": 1,
    "layers.1.bias": 0,
    "num_batches_tracked": 0,
}
BOUND = {"A_res": 1e-6, "layers.0.weight": 10240**-0.5, "layers.0.bias": 10240**-0.5}


def check_initial(key, tensor):
    for ending, value in INITIAL.items():
        if key.endswith(ending):
            assert (tensor == value).all(), key
            return
    bound = next(bound for ending, bound in BOUND.items() if key.endswith(ending))
    # Uniform: almost to the bound on both sides, its deviation is bound/√3 (n > 2,000 numbers).
    assert bound * 0.99 < tensor.max() <= bound and -bound <= tensor.min() < -bound * 0.99, key
    assert abs(tensor.std() / bound * 3**0.5 - 1) < 0.05, key


def save_published(folder, seed):
    """The three published files as torch.save writes them, one in memory at a time."""
    for name, entries in MANIFEST.items():
        state = {k: fill.parameter(f"{name}:{k}", tuple(s), seed) for k, s in entries}
        torch.save({key: torch.from_numpy(array) for key, array in state.items()}, folder / name)


def written_frames(folder, golden):
    """The golden tracklets as PNG files, and their manifest."""
    lines = []
    for modality in ("visible", "infrared"):
        frames = fill.frames(12, 256, 128, int(golden[f"{modality}_seed"]))
        for i, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"{modality}{i}.png")
        for v in range(2):
            names = [f"{modality}{i}.png" for i in range(6 * v, 6 * v + 6)]
            lines.append(json.dumps({"frames": names, "modality": modality, "identity": v}))
    (folder / "tracklets.jsonl").write_text("\n".join(lines))
    return folder / "tracklets.jsonl"


def test_files_in_descriptors_out_and_files_again(record_property):
    golden = np.load(ROOT / "tests/golden/dinogrl_eval.npz")
    with tempfile.TemporaryDirectory() as place:  # pytest would keep 2 GiB for three runs
        folder = Path(place)
        save_published(folder, int(golden["seed"]))
        made, back, features = (folder / name for name in ("made", "back", "features.npz"))
        given = [word for role, name in FILES.items() for word in (f"--{role}", folder / name)]
        conversion = script("convert.py", "--from", "dinogrl", *given, "--out", made, **OPTIMISED)
        report(record_property, "conversion in", conversion)
        assert conversion.gib < 2  # the three files are 0.45 GiB, and so are the variables
        source = ("--checkpoint", made, "--tracklets", written_frames(folder, golden))
        extraction = script("extract.py", *source, "--out", features, **OPTIMISED)
        report(record_property, "descriptors", extraction)
        check_descriptors(np.load(features), golden)
        export = script(
            "convert.py", "--to", "torch", "--checkpoint", made, "--out", back, **OPTIMISED
        )
        report(record_property, "conversion out", export)
        for name in FILES.values():
            check_exported(folder / name, back / name)


def report(record_property, what, done):
    assert done.status == 0, done.errors
    record_property(what, f"{done.seconds:.1f} s, {done.gib:.2f} GiB")


def check_descriptors(features, golden):
    embedding = features["embedding"]
    assert embedding.shape == (4, 70, 256) and embedding.dtype == np.float32
    for i, modality in enumerate(("visible", "infrared")):
        for j, stream in enumerate(("gait", "appearance")):
            published = golden[f"{modality}_{stream}"].swapaxes(1, 2)
            made = embedding[2 * i : 2 * i + 2, 35 * j : 35 * j + 35]
            assert np.abs(made - published).max() < 1e-3 * published.std()  # as in fidelity.py
    assert features["modality"].tolist() == ["visible"] * 2 + ["infrared"] * 2
    assert features["identity"].tolist() == [0, 1, 0, 1] and (features["camera"] == -1).all()


def check_exported(original, exported):
    files = dinogrl.released_files(default("dinogrl")).values()
    rules = {file.name: file.rules for file in files}
    saved, again = (torch.load(path, weights_only=True) for path in (original, exported))
    assert {k: list(v.shape) for k, v in again.items()} == dict(MANIFEST[original.name])
    for key, tensor in again.items():
        assert tensor.dtype == saved[key].dtype
        rule = next(rule for rule in rules[original.name] if rule.match_key(key) is not None)
        if hasattr(rule, "path"):
            assert torch.equal(tensor, saved[key]), key
        else:
            check_initial(key, tensor)
