"""Single frames of walkers with captions, which a small CLIP learns from."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from dinogrl_jax.data.parallel import map_in_processes
from dinogrl_jax.data.walkers.captions import (
    IDS,
    LENGTH,
    VOCABULARY,
    caption,
    token_ids,
    true_words,
)
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
    outlines: Bool[np.ndarray, "p shots h2 w2"]  # at half the size
    captions: Int[np.ndarray, "p captions n"]  # ids of tokens
    words: Bool[np.ndarray, "p vocabulary"]  # that are true of a person


def captioned_people(
    seeds: Sequence[int], identities: int, height: int, width: int, workers: int = 2
) -> CaptionedPeople:
    """People of several seeds, each of which has cameras of its own.

    identities: of each seed; height, width: pixels, even numbers; workers: processes.
    """
    people = []
    for seed in seeds:
        settings = Settings(seed, identities, 1, SHOTS // 2, 1, height, width)
        passages = [p for p in planned_passages(settings) if p.split == 0]
        own = (passages[i : i + SHOTS] for i in range(0, len(passages), SHOTS))
        people += [(settings, passages) for passages in own]
    with Progress("rendering", len(people), "people") as progress:
        made = list(progress.over(map_in_processes(captioned_person, people, workers)))
    return CaptionedPeople(*(np.stack(x) for x in zip(*made, strict=True)))


def captioned_person(person: tuple[Settings, Sequence[Passage]]) -> tuple[np.ndarray, ...]:
    """What CaptionedPeople has of a person; of each passage it has the first frame."""
    settings, passages = person
    pairs = [passage_pictures(settings, passage) for passage in passages]
    frames = [x[0] if x.ndim == 4 else np.repeat(x[0, ..., None], 3, -1) for x, _ in pairs]
    outlines = np.stack([x[0] for _, x in pairs]).astype(float)
    outlines = outlines.reshape(len(pairs), settings.height // 2, 2, settings.width // 2, 2)
    who = person_of(settings, passages[0])
    rng = np.random.default_rng([settings.seed, 4, passages[0].identity])
    texts = [token_ids(caption(who, rng), LENGTH) for _ in range(CAPTIONS)]
    true = np.zeros(len(VOCABULARY), bool)
    true[[IDS[word] for word in true_words(who)]] = True
    return np.stack(frames), outlines.mean((2, 4)) > 127, np.array(texts, np.int32), true
