"""scripts/serve.py: from a command to a page, and everything that is refused before."""

import os
import re
import signal
import socket
import subprocess
import sys

import pytest
import requests
import served
from commands import ROOT

import dinogrl_jax
from dinogrl_jax.retrieval.store.gallery import Gallery
from dinogrl_jax.retrieval.store.labels import write_label

INDEX = ("serve", "--index", "g")
MODEL = (*INDEX, "--checkpoint", "x")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, the frames of clips, and a gallery of them."""
    folder = tmp_path_factory.mktemp("serve")
    run, clips = served.write_run(folder / "run"), served.write_frames(folder / "frames")
    served.fill(folder / "g", dinogrl_jax.load(run, batch=1), clips)
    return run, clips, folder / "g"


def test_from_the_command_to_answers_and_an_end(made, tmp_path):
    run, clips, gallery = made
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    words = ("--index", gallery, "--checkpoint", run, "--port", 0, "--token-file", token)
    command = [sys.executable, ROOT / "scripts/serve.py", *words, "--host", "0.0.0.0"]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        for line in process.stdout:
            if found := re.search(r"http://0\.0\.0\.0:(\d+)/ finds people", line):
                break
        address = f"http://127.0.0.1:{found[1]}"
        assert requests.get(f"{address}/health").json() == {"status": "ok"}
        assert requests.get(f"{address}/gallery").status_code == 401
        headers = {"Authorization": "Bearer 0123456789abcdef"}
        files = [("files", one) for one in served.files_of(clips[3])]
        answer = requests.post(
            f"{address}/search", headers=headers, files=files, data={"modality": "infrared"}
        )
        model = dinogrl_jax.load(run, batch=1)
        (query,) = model.embed([clips[3]], "infrared")
        found = Gallery.open(gallery, model).search(query, 20)
        assert [x["distance"] for x in answer.json()["found"]] == [x.distance for x in found]
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 130 and errors.splitlines()[-1] == "interrupted"


def test_labels_become_a_manifest(made, done):
    _, clips, folder = made
    status, _, errors = done("serve", "--index", folder, "--export-labels", "labels.jsonl")
    assert status == 2 and "nobody has called a tracklet" in errors
    write_label(folder, "q", "infrared", [clips[3][0].read_bytes()], 3, "same")
    status, output, errors = done("serve", "--index", folder, "--export-labels", "labels.jsonl")
    assert (status, errors) == (0, "") and "labels.jsonl: 2 tracklets of 1 people" in output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("serve",), "--index"),
        (INDEX, "needs a model, --checkpoint DIR"),
        ((*MODEL, "--host", "0.0.0.0"), "--host 0.0.0.0 lets others in: give a token"),
        ((*MODEL, "--host", "::"), "--host :: lets others in"),
        ((*MODEL, "--host", "cameras.example.org"), "lets others in"),
        ((*MODEL, "--token-file", "nowhere"), "nowhere cannot be read"),
        ((*MODEL, "--port", "-1"), "no whole number from 0 on"),
        ((*MODEL, "--frames", "0"), "no whole number from 1 on"),
        ((*MODEL, "--upload", "nan"), "no number from"),
        (MODEL, "g: there is no such gallery: dinogrl_jax search --index g"),
    ],
)
def test_refusals(words, said, refused):
    assert said in refused(*words)


@pytest.mark.parametrize(
    "token", ["", "short", "with a space, though long", "ümlaut-ümlaut-ümlaut"]
)
def test_tokens_that_are_none(token, refused, monkeypatch):
    monkeypatch.setenv("DINOGRL_JAX_TOKEN", token)
    said = refused(*MODEL)
    assert "DINOGRL_JAX_TOKEN: a token has 16 letters or more" in said and "short" not in said[40:]


def test_an_address_in_use_or_none(refused, tmp_path):
    (tmp_path / "g").mkdir()
    assert "port 99999 is none" in refused(*MODEL, "--port", "99999")
    (tmp_path / "t").write_text("0123456789abcdef")
    strange = ("--host", "192.0.2.1", "--token-file", "t")
    assert "192.0.2.1, port 8000: " in refused(*MODEL, *strange)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert "Address already in use: choose another" in refused(*MODEL, "--port", port)


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "prometheus_client", "python_multipart"])
def test_what_is_not_installed(name, refused, monkeypatch):
    for module in [x for x in sys.modules if x.startswith("dinogrl_jax.retrieval.server")]:
        monkeypatch.delitem(sys.modules, module)
    package = sys.modules["dinogrl_jax.retrieval"]
    monkeypatch.delattr(package, "server", raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    said = refused(*MODEL)
    assert f"needs {name}, which is not installed: pip install 'dinogrl_jax[serve]'" in said
