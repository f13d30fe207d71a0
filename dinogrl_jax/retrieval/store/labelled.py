"""What people have said of searches, as a manifest with identities: training data.

Who is the same person as a query is one person with all who are, and with tracklets of the same
known identity. Where somebody has said both, or two identities meet, nobody can tell: these are
left out, and named.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import atomic_write
from dinogrl_jax.retrieval.store import database
from dinogrl_jax.retrieval.store.database import Entry
from dinogrl_jax.retrieval.store.labels import (
    SAME,
    Label,
    stored_labels,
    stored_modality,
    stored_pictures,
)

Tracklet = str | int  # a query's digest, or the place of a tracklet


class Exported(NamedTuple):
    """What a manifest of labels holds."""

    tracklets: int  # queries included
    people: int
    left_out: tuple[str, ...]  # lines that say what, and why


class Person(NamedTuple):
    """Tracklets that are one person's."""

    name: str
    queries: list[str]
    places: list[int]


def write_labelled(folder: Path, out: Path) -> Exported:
    """Write the tracklets that somebody has called the same person's to a manifest.

    The frames of queries lie in a folder beside it, `<name>_queries`; the manifest comes last.

    Raises InputError where nobody has said so of any, and for files that cannot be written.
    """
    labels = stored_labels(folder)
    places = sorted({x.place for x in labels})
    entries: dict[int, Entry] = {}
    if places:
        with database.connection(folder) as base:
            entries = dict(zip(places, database.entries_at(base, places), strict=True))
    people, left_out = labelled_people(labels, {p: x.identity for p, x in entries.items()})
    lines = []
    for person in people:
        for place in person.places:
            entry = entries[place]
            if missing := [x for x in entry.frames if not os.path.isfile(x)]:
                left_out.append(f"{entry.name}: the frame {missing[0]} is no file here")
            elif entry.frames:
                frames = [os.path.abspath(x) for x in entry.frames]
                lines.append(_line(frames, person.name, entry.modality, entry.camera))
            else:
                left_out.append(f"tracklet {place}: the gallery knows no frames of it")
        for query in person.queries:
            frames = _written_frames(folder, query, out)
            lines.append(_line(frames, person.name, stored_modality(folder, query)))
    if not lines:
        raise InputError(f'{folder}: nobody has called a tracklet "same person" yet')
    with atomic_write(out) as file:
        file.write("".join(lines).encode())
    return Exported(len(lines), len(people), tuple(left_out))


def labelled_people(
    labels: Sequence[Label], identities: dict[int, str]
) -> tuple[list[Person], list[str]]:
    """Who is one person, and lines that say whom nobody can tell.

    identities: of the tracklets at places; "" unknown.
    """
    same = [(x.query, x.place) for x in labels if x.label == SAME]
    known = [(("identity", name), place) for place, name in identities.items() if name]
    groups = _connected([*same, *known])
    group_of = {one: number for number, group in enumerate(groups) for one in group}
    said = {group_of[query] for query, _ in same}
    torn = {
        group_of[x.query]
        for x in labels
        if x.label != SAME and x.query in group_of and group_of[x.query] == group_of.get(x.place)
    }
    start = "person_"
    while any(name.startswith(start) for name in identities.values()):
        start += "_"
    people, left_out = [], []
    for number in sorted(said):
        places = sorted(x for x in groups[number] if isinstance(x, int))
        names = sorted(x[1] for x in groups[number] if isinstance(x, tuple))
        who = f"tracklets {', '.join(map(str, places))}"
        if number in torn:
            left_out.append(f"{who}: the same person by some answers, and another one by others")
        elif len(names) > 1:
            left_out.append(f"{who}: the same person by answers, but known as {', '.join(names)}")
        else:
            queries = sorted(x for x in groups[number] if isinstance(x, str))
            name = names[0] if names else f"{start}{places[0]}"
            people.append(Person(name, queries, places))
    return people, left_out


def _connected(pairs: Iterable[tuple]) -> list[set]:
    """What pairs connect, in the order in which each first occurs."""
    beside = defaultdict(set)
    for a, b in pairs:
        beside[a].add(b)
        beside[b].add(a)
    groups, seen = [], set()
    for start in beside:
        if start in seen:
            continue
        group, ahead = set(), [start]
        while ahead:
            one = ahead.pop()
            if one not in group:
                group.add(one)
                ahead += beside[one]
        seen |= group
        groups.append(group)
    return groups


def _line(frames: list[str], identity: str, modality: str, camera: str = "") -> str:
    entry = {"frames": frames, "identity": identity, "modality": modality, "split": "train"}
    return json.dumps(entry | ({"camera": camera} if camera else {})) + "\n"


def _written_frames(folder: Path, query: str, out: Path) -> list[str]:
    """The frames of a query as files; their names from the manifest's folder on."""
    inside = Path(f"{out.stem}_queries") / query
    names = []
    try:
        (out.parent / inside).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out.parent / inside}: cannot be made ({error.strerror})") from error
    for number, picture in enumerate(stored_pictures(folder, query)):
        name = inside / f"{number:04d}.png"
        with atomic_write(out.parent / name) as file:
            file.write(picture)
        names.append(str(name))
    return names
