"""What a run shows: scalars and pictures for TensorBoard, PNG files, and a table."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict
from PIL import Image

from dinogrl_jax.devices import hosts
from dinogrl_jax.interface.progress import duration
from dinogrl_jax.training.optim import learning_rate

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
FIGURES = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
DIRECTIONS = ("visible_to_infrared", "infrared_to_visible")


class Summary:
    """Writes scalars and pictures into a working directory, if this process is the one that writes.

    Each is on disk when its call returns: tensorboardX's own queue waits for ever where its thread
    has died of a full disk. Where nothing can be written, the run is told once and goes on.
    """

    def __init__(self, workdir: Path):
        self.workdir = workdir
        self.writes = hosts.first()
        self.events = None

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        with self._told_once():
            self._write("scalar", {f"{group}/{name}": x for name, x in values.items()}, step)

    def picture(self, name: str, picture: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """In TensorBoard, and as pictures/<name>.png, which the next one replaces."""
        with self._told_once():
            self._write("image", {name: picture}, step, dataformats="HWC")
            if self.writes:
                (self.workdir / "pictures").mkdir(exist_ok=True)
                Image.fromarray(picture).save(self.workdir / "pictures" / f"{name}.png")

    def _write(self, kind: str, values: Mapping[str, Any], step: int, **options: str) -> None:
        if not self.writes:
            return
        # Not above: where PyTorch is installed it is imported too, which takes a second.
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto.event_pb2 import Event

        if self.events is None:
            (self.workdir / "tensorboard").mkdir(exist_ok=True)
            events = str(self.workdir / "tensorboard" / "events")
            self.events = event_file_writer.EventsWriter(events)
        for name, value in values.items():
            shown = getattr(summary, kind)(name, value, **options)
            self.events.write_event(Event(wall_time=time.time(), step=step, summary=shown))
        self.events.flush()

    @contextlib.contextmanager
    def _told_once(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.writes = False
            print(
                f"{self.workdir}: scalars and pictures cannot be written ({error.strerror}); "
                "the run goes on without them",
                file=sys.stderr,
            )


def results_table(results: Mapping[str, Any]) -> str:
    """The figures of both directions in percent, and chance, as lines of text."""
    about = f"{results['protocol']}, {results['checkpoint']} checkpoint, step {results['step']}"
    return table(results, about)


def table(figures: Mapping[str, Any], about: str) -> str:
    """A line about the figures, their heads, and a row for each direction that is there."""
    header = "".join(f"{name:>8}" for name in (*FIGURES, "chance"))
    return "\n".join([about, f"{'':22}{header}   queries × gallery", *_rows(figures)])


def _rows(figures: Mapping[str, Any]) -> list[str]:
    rows = []
    for direction in filter(figures.__contains__, DIRECTIONS):
        row = figures[direction]
        cells = "".join(f"{100 * row[name]:8.2f}" for name in (*FIGURES, "chance_rank1"))
        size = f"{row['queries']} × {row['gallery']}"
        rows.append(f"{direction.replace('_', ' '):22}{cells}   {size}")
    return rows


def maps_picture(
    frames: Float[np.ndarray, "n h w 3"],
    foreground: Float[np.ndarray, "n h2 w2"],
    denoising: Float[np.ndarray, "n h2 w2 c"],
    appearance: Float[np.ndarray, "n h2 w2 c"],
) -> UInt8[np.ndarray, "h3 w3 3"]:
    """Normalised frames above their foreground, denoising and appearance maps, side by side.

    The channels of a map are shown as colours: their first three principal components.
    """
    h, w = frames.shape[1:3]
    rows = [np.clip(frames * IMAGENET_STD + IMAGENET_MEAN, 0, 1)]
    rows.append(np.repeat(_enlarged(foreground[..., None], h, w), 3, axis=-1))
    rows += [
        _enlarged(_principal_colours(m, foreground > 0), h, w) for m in (denoising, appearance)
    ]
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    return np.round(255 * grid).astype(np.uint8)


def _enlarged(maps: np.ndarray, h: int, w: int) -> np.ndarray:
    rows = np.arange(h) * maps.shape[1] // h
    columns = np.arange(w) * maps.shape[2] // w
    return maps[:, rows][:, :, columns]


def _principal_colours(maps: np.ndarray, shown: np.ndarray) -> np.ndarray:
    colours = np.zeros((*maps.shape[:-1], 3), np.float32)
    values = maps[shown]
    if len(values) > 3:
        centred = values - values.mean(0)
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        projected = centred @ axes[:3].T
        low, high = np.percentile(projected, [2, 98], axis=0)
        colours[shown] = np.clip((projected - low) / np.maximum(high - low, 1e-6), 0, 1)
    return colours


class TrainingLog:
    """The lines and scalars of a training run."""

    def __init__(self, config: ConfigDict, summary: Summary, first: int, last: int):
        self.config, self.summary, self.last = config, summary, last
        self.began, self.noted = time.monotonic(), first

    def step(self, number: int, terms: Mapping[str, Array]) -> None:
        """One line and the loss's terms, every `train.log_every` steps and at the end."""
        if number % self.config.train.log_every and number != self.last:
            return
        values = {name: float(value) for name, value in terms.items()}  # waits for the device
        rate = (number - self.noted) / (time.monotonic() - self.began)
        self.began, self.noted = time.monotonic(), number
        epoch = (number - 1) // self.config.train.steps_per_epoch
        values["learning_rate"] = float(learning_rate(self.config.optimizer, epoch))
        self.summary.scalars("train", {**values, "steps_per_second": rate}, number)
        left = duration((self.last - number) / rate)
        print(
            f"step {number}/{self.last}  epoch {epoch + 1}  loss {values['total']:.4f}  "
            f"rate {values['learning_rate']:.2e}  {rate:.2f} steps/s  {left} left",
            flush=True,
        )

    def evaluation(self, number: int, figures: Mapping[str, Mapping[str, float]]) -> None:
        """The figures as a table's rows, and as scalars."""
        for direction in DIRECTIONS:
            self.summary.scalars(direction, figures[direction], number)
        print(
            f"evaluation at step {number}: {', '.join(FIGURES)}, chance", *_rows(figures), sep="\n"
        )
        self.began, self.noted = time.monotonic(), number
