"""Single frames of walkers with captions, which a small CLIP learns from."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from dinogrl_jax.data.parallel import map_in_processes
from dinogrl_jax.data.walkers.captions import (
    IDS,
    LENGTH,
    VOCABULARY,
    caption,
    token_ids,
    true_words,
)
from dinogrl_jax.data.walkers.people import Person
from dinogrl_jax.data.walkers.render import material_covers, render_passage
from dinogrl_jax.data.walkers.synthetic import (
    Passage,
    Settings,
    filming,
    person_of,
    planned_passages,
)
from dinogrl_jax.interface.progress import Progress

SHOTS = 8  # frames of each person, half of them infrared
CAPTIONS = 16  # of each person
CELL = 4  # pixels, of the squares whose materials are known
GAIT = ("hip", "knee", "spread", "toes", "lean", "head_lean", "arm_swing", "arm_spread", "elbow")


class CaptionedPeople(NamedTuple):
    frames: UInt8[np.ndarray, "p shots h w 3"]
    materials: UInt8[np.ndarray, "p shots rows columns m"]  # shares of cells, 255 is all of one
    captions: Int[np.ndarray, "p captions n"]  # ids of tokens
    words: Bool[np.ndarray, "p vocabulary"]  # that are true of a person
    measures: Float[np.ndarray, "p k"]  # of bodies, clothes and gaits


def captioned_people(
    seeds: Sequence[int], identities: int, height: int, width: int, workers: int = 2
) -> CaptionedPeople:
    """People of several seeds, each of which has cameras of its own.

    identities: of each seed; height, width: pixels, multiples of CELL; workers: processes.
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
    frames, materials = zip(*(captioned_frame(settings, p) for p in passages), strict=True)
    who = person_of(settings, passages[0])
    rng = np.random.default_rng([settings.seed, 4, passages[0].identity])
    texts = [token_ids(caption(who, rng), LENGTH) for _ in range(CAPTIONS)]
    true = np.zeros(len(VOCABULARY), bool)
    true[[IDS[word] for word in true_words(who)]] = True
    texts = np.array(texts, np.int32)
    return np.stack(frames), np.stack(materials), texts, true, measures(who)


def captioned_frame(
    settings: Settings, passage: Passage
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "rows columns m"]]:
    """The first frame of a passage, and the shares of materials in its cells."""
    who, place, shot, *others = filming(settings, passage)
    frame = render_passage(who, place, shot, *others)[0][0]
    covers = material_covers(who, place, shot, frame.shape[:2])[:, 0]
    m, h, w = covers.shape
    shares = covers.reshape(m, h // CELL, CELL, w // CELL, CELL).mean((2, 4))
    frame = np.broadcast_to(frame, (h, w, 3))
    return frame, np.round(255 * np.moveaxis(shares, 0, -1)).astype(np.uint8)


def measures(who: Person) -> Float[np.ndarray, " k"]:
    """Numbers that shape shows, mirrored or not: of a body, of clothes, of a gait those of GAIT."""
    worn = who.wardrobe._asdict().items()
    clothes = (float(x) for name, x in worn if not isinstance(x, str) and name != "bag_side")
    gait = (getattr(who.gait, name) for name in GAIT)
    return np.hstack([*who.body, *clothes, *gait]).astype(np.float32)
