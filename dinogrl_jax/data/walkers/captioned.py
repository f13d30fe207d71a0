"""Single frames of walkers with captions, which a small CLIP learns from."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from dinogrl_jax.data.parallel import map_in_processes
from dinogrl_jax.data.walkers.captions import LENGTH, caption, token_ids
from dinogrl_jax.data.walkers.synthetic import (
    Passage,
    Settings,
    passage_pictures,
    person_of,
    planned_passages,
)
from dinogrl_jax.interface.progress import Progress

SHOTS = 8  # frames of each person, half of them infrared
CAPTIONS = 16  # of each person


class CaptionedPeople(NamedTuple):
    frames: UInt8[np.ndarray, "p shots h w 3"]
    captions: Int[np.ndarray, "p captions n"]  # ids of tokens


def captioned_people(
    seeds: Sequence[int], identities: int, height: int, width: int, workers: int = 2
) -> CaptionedPeople:
    """People of several seeds, each of which has cameras of its own.

    identities: of each seed; height, width: pixels; workers: processes.
    """
    people = []
    for seed in seeds:
        settings = Settings(seed, identities, 1, SHOTS // 2, 1, height, width)
        passages = [p for p in planned_passages(settings) if p.split == 0]
        own = (passages[i : i + SHOTS] for i in range(0, len(passages), SHOTS))
        people += [(settings, passages) for passages in own]
    with Progress("rendering", len(people), "people") as progress:
        made = list(progress.over(map_in_processes(frames_and_captions, people, workers)))
    frames, captions = zip(*made, strict=True)
    return CaptionedPeople(np.stack(frames), np.stack(captions))


def frames_and_captions(
    person: tuple[Settings, Sequence[Passage]],
) -> tuple[UInt8[np.ndarray, "shots h w 3"], Int[np.ndarray, "captions n"]]:
    """The first frame of each passage of a person, and the ids of captions."""
    settings, passages = person
    frames = [passage_pictures(settings, passage)[0][0] for passage in passages]
    frames = [x if x.ndim == 3 else np.repeat(x[..., None], 3, -1) for x in frames]
    who = person_of(settings, passages[0])
    rng = np.random.default_rng([settings.seed, 4, passages[0].identity])
    texts = [token_ids(caption(who, rng), LENGTH) for _ in range(CAPTIONS)]
    return np.stack(frames), np.array(texts, np.int32)
