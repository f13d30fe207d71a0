"""What docs/deploy.md says is run as it stands there, for one task and without SLURM."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small
import videos
from commands import ROOT

import dinogrl_jax
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.training import checkpoint


def block(name: str) -> str:
    """The lines of the page's block behind a mark."""
    text = (ROOT / "docs/deploy.md").read_text()
    return text.split(f"<!-- {name} -->\n```bash\n")[1].split("```")[0]


def ran(folder: Path, script: str, *words: str, **environment: str) -> str:
    """What bash prints of a script, with `dinogrl_jax` as an installed one has it."""
    command = folder / "bin/dinogrl_jax"
    command.parent.mkdir(exist_ok=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m dinogrl_jax "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script, "array.sh", *words],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_task_of_the_array_and_the_gallery(tmp_path):
    config = small.get_config()
    metadata = checkpoint.Metadata(config, list(range(small.IDENTITIES)), [1, 2, 3], 7)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    variables = jax.device_get(initial_variables(small.model(config), config))
    checkpoint.write_checkpoint(tmp_path / "run/checkpoints", variables, metadata)
    videos.written(tmp_path / "cam.mp4")
    (tmp_path / "cam.txt").write_text("".join(f"{i},1,4,4,20,40,1\n" for i in range(1, 9)))
    video = {"video": "cam.mp4", "tracks": "cam.txt", "modality": "visible", "camera": 1}
    other = {"video": "none.mp4", "tracks": "none.txt", "modality": "visible"}
    lines = [other, {**video, "start": "1970-01-01T00:01:00Z"}]
    (tmp_path / "videos.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ("videos.jsonl", "run", "found")
    for said in ("1 tracklets", ""):  # a task that is run again has nothing to do
        output = ran(tmp_path, block("array"), *words, SLURM_ARRAY_TASK_ID="2")
        assert said in output if said else not output
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["2", "2.npz"]
    for added in (1, 0):
        assert f"{added} tracklets added, 1 in all" in ran(tmp_path, block("gather"))
    gallery = dinogrl_jax.Gallery.open(tmp_path / "gallery")
    descriptor = np.load(tmp_path / "found/2.npz")["embedding"][0]
    (found,) = gallery.search(descriptor, 5, since=60, until=60)
    assert found.time == 60 and found.camera == "1" and Path(found.frames[0]).is_file()


def test_the_container_has_what_the_package_is_made_of():
    """Of the checkout, as .ci/installed copies it for the wheel."""
    copied = [
        word
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for word in line.split()[1:-1]
    ]
    (line,) = [
        line
        for line in (ROOT / ".ci/installed").read_text().splitlines()
        if line.startswith("cp -r ")
    ]
    assert sorted(copied) == sorted(line.split()[2:-1])
