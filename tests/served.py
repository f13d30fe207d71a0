"""A server of a small model and a gallery, in a thread of this process; and what is asked of it."""

import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import requests
import small
import uvicorn
from PIL import Image

import dinogrl_jax
from dinogrl_jax.methods.variables import initial_variables
from dinogrl_jax.retrieval.server.app import create_app
from dinogrl_jax.retrieval.server.decoders import Limits
from dinogrl_jax.retrieval.server.guard import Access
from dinogrl_jax.retrieval.server.service import Service
from dinogrl_jax.retrieval.store.gallery import Gallery
from dinogrl_jax.training import checkpoint

BATCH, TRACKLETS, FRAMES = 4, 12, 3
HOSTILE = "<img src=x onerror=alert(1)>&\"'"
ACCESS, LIMITS = Access(), Limits()
Files = Sequence[tuple[str, bytes]]


def write_run(folder: Path) -> Path:
    """A small model of random weights, with an evaluation that says what distances mean."""
    config = small.get_config()
    identities, cameras = list(range(small.IDENTITIES)), list(small.FACTS.cameras)
    metadata = checkpoint.Metadata(config, identities, cameras, 7)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    variables = jax.device_get(initial_variables(small.model(config), config))
    checkpoint.write_checkpoint(folder / "checkpoints", variables, metadata)
    thresholds = [{"false_accepts": a, "distance": d} for a, d in ((0.1, 1.0), (0.01, 0.3))]
    content = {"step": 7, "distance": config.evaluation.distance, "rerank": "none"}
    content["verification"] = {"thresholds": thresholds}
    (folder / "evaluation.json").write_text(json.dumps(content))
    return folder


def write_frames(folder: Path) -> list[list[Path]]:
    """The frames of tracklets, of random pixels and different sizes."""
    rng, clips = np.random.default_rng(0), []
    for number in range(TRACKLETS):
        (folder / str(number)).mkdir(parents=True)
        clips.append([folder / str(number) / f"{i}.png" for i in range(FRAMES)])
        for i, path in enumerate(clips[-1]):
            pixels = rng.integers(0, 256, (60 + i, 30, 3), np.uint8)
            Image.fromarray(pixels).save(path)
    return clips


def fill(folder: Path, model, clips: Sequence[Sequence[Path]]) -> Gallery:
    """A gallery of clips in turns visible and infrared, an hour apart; one has a hostile name."""
    gallery = dinogrl_jax.Gallery.open(folder, model)
    modality = [("visible", "infrared")[i % 2] for i in range(len(clips))]
    gallery.add(
        model.embed(clips, modality),
        modality=modality,
        camera=[i % 3 for i in range(len(clips))],
        identity=[HOSTILE if i == 5 else None for i in range(len(clips))],
        time=[3600 * i for i in range(len(clips))],
        frames=[list(map(str, clip)) for clip in clips],
        name=[HOSTILE if i == 5 else f"tracklet-{i}" for i in range(len(clips))],
    )
    return gallery


class Client:
    """Asks a server."""

    def __init__(self, address: str, service: Service) -> None:
        self.address, self.service, self.headers = address, service, {}

    def ask(self, verb: str, path: str, headers=None, **options) -> requests.Response:
        headers = {**self.headers, **(headers or {})}
        return requests.request(
            verb, f"{self.address}{path}", headers=headers, timeout=60, **options
        )

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.ask("GET", path, headers)

    def search(self, files: Files, modality: str = "visible", **form) -> requests.Response:
        parts = [("files", (name, content)) for name, content in files]
        return self.ask("POST", "/search", files=parts, data={"modality": modality, **form})

    def say(self, query: str, place: int, label: str | None) -> requests.Response:
        return self.ask("PUT", "/labels", json={"query": query, "place": place, "label": label})


@contextlib.contextmanager
def served(
    model,
    folder: Path,
    access: Access = ACCESS,
    limits: Limits = LIMITS,
) -> Iterator[Client]:
    service = Service(model, folder, limits)
    app = create_app(service, access)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield Client(f"http://127.0.0.1:{listening.getsockname()[1]}", service)
        finally:
            server.should_exit = True
            thread.join()


def files_of(clip: Sequence[Path]) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in clip]


def png(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def line(answer: requests.Response, status: int) -> str:
    """The one line of a refusal."""
    assert answer.status_code == status, answer.text
    (key, text), *_ = answer.json().items()
    assert key == "detail" and isinstance(text, str) and "\n" not in text and len(text) > 10
    return text
