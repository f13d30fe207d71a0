"""The runs that are compared: read, named, and of the same queries."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dinogrl_jax.interface.errors import InputError, errors_naming
from dinogrl_jax.retrieval import feature_file, scoring
from dinogrl_jax.retrieval.comparison.queries import (
    FILE,
    Ranked,
    Row,
    Scored,
    read_queries,
    scored_queries,
)
from dinogrl_jax.retrieval.report.subjects import subject_of_features

MOST_RUNS = 8  # as many as a chart's curves can be told apart


class Run(NamedTuple):
    name: str
    scored: Scored

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings by names with dots; how it was scored counts, whatever was configured."""
        how = {f"evaluation.{name}": value for name, value in self.scored.options.items()}
        return {**self.scored.settings, **how}


def read_runs(places: Sequence[str], options: scoring.ScoringOptions) -> list[Run]:
    """The runs in folders, and those of features files, which are scored by the options.

    The queries of all are in the order of the first run's.

    Raises InputError for fewer than two, for one that is there twice, where a folder has no
    per-query results, and where queries, galleries or the camera filter differ.
    """
    if not 2 <= len(places) <= MOST_RUNS:
        raise InputError(f"command line: name 2 to {MOST_RUNS} runs, not {len(places)}")
    names = run_names(places)
    runs = [Run(n, read_scored(p, options)) for n, p in zip(names, places, strict=True)]
    return [runs[0], *(aligned(run, runs[0]) for run in runs[1:])]


def run_names(places: Sequence[str]) -> list[str]:
    """The folders' own names, or whole paths where two have the same."""
    paths = [Path(place).absolute() for place in places]
    paths = [path.parent if path.name == FILE else path for path in paths]
    own = Counter(path.stem if path.suffix == ".npz" else path.name for path in paths)
    for path, count in Counter(map(Path.resolve, paths)).items():
        if count > 1:
            times = "twice" if count == 2 else f"{count} times"
            raise InputError(f"command line: {path} is named {times}: name each run once")
    short = [path.stem if path.suffix == ".npz" else path.name for path in paths]
    return [name if own[name] == 1 else place for name, place in zip(short, places, strict=True)]


def read_scored(place: str, options: scoring.ScoringOptions) -> Scored:
    """What the queries of a run reached; InputError says which command finds that out."""
    try:
        file = file_of_run(place)
    except OSError as error:  # a name that is too long, a folder that is not ours
        raise InputError(f"{place[:200]} cannot be read: {error.strerror}") from error
    return read_queries(file) if file.name == FILE else scored_features(file, options)


def file_of_run(place: str) -> Path:
    """The file that holds a run's queries or features; OSError where a folder cannot be read."""
    path = Path(place)
    if path.is_file():
        return path
    if (path / FILE).exists():
        return path / FILE
    if not path.is_dir():
        raise InputError(f"{place}: there is no such run; name its folder, or a features file")
    files = sorted(x for x in path.iterdir() if x.suffix == ".npz")
    if not files:
        raise InputError(f"{place} has no {FILE}: run dinogrl_jax evaluate --workdir {place}")
    if len(files) > 1:
        raise InputError(f"{place} has no {FILE} and holds {len(files)} features files: name one")
    return files[0]


def scored_features(path: Path, options: scoring.ScoringOptions) -> Scored:
    """What the queries of a features file reach, by its own distance where options have none."""
    f = feature_file.read_features(str(path))
    options = options._replace(distance=options.distance or f.distance)
    with errors_naming(path):
        evaluation = scoring.evaluation_of(f.embedding, f.label_columns, options, f.halves)
    subject = subject_of_features(f, str(path.parent))
    return scored_queries(evaluation, subject, {"features": path.name})


def aligned(run: Run, first: Run) -> Run:
    """A run with its queries in the order of the first one's; InputError if they differ."""
    who, (own, other) = f"{run.name} and {first.name}", (run.scored, first.scored)
    if own.options["camera_filter"] != other.options["camera_filter"]:
        raise InputError(f"{who}: only one was scored with the camera filter: score both alike")
    if own.directions.keys() != other.directions.keys():
        raise InputError(f"{who}: one of them has queries in one direction only")
    if problem := first_difference(own, other):
        raise InputError(f"{who}: {problem}: evaluate both on the same test set")
    directions = {}
    for name, wanted in other.directions.items():
        found = own.directions[name]
        directions[name] = in_order_of(found, wanted)
        if (directions[name].result.valid != wanted.result.valid).any():
            raise InputError(f"{who}: {name.replace('_', ' ')}, other queries have a match")
    return run._replace(scored=own._replace(directions=directions))


def first_difference(own: Scored, other: Scored) -> str:
    """How queries differ, or else galleries, and in which direction; empty where none do."""
    for difference in (difference_of_queries, difference_of_galleries):
        for name, wanted in other.directions.items():
            if problem := difference(own.directions[name], wanted):
                return f"{name.replace('_', ' ')}, {problem}"
    return ""


def difference_of_queries(found: Ranked, wanted: Ranked) -> str:
    """How two sets of queries differ; empty where they do not."""
    more, less = (Counter(x.rows) for x in (found, wanted))
    return difference_of_rows(more - less, less - more) if more != less else ""


def difference_of_galleries(found: Ranked, wanted: Ranked) -> str:
    """How two galleries differ; empty where they do not."""
    sizes = found.result.gallery, wanted.result.gallery
    if sizes[0] != sizes[1]:
        return f"the galleries have {sizes[0]} and {sizes[1]} tracklets"
    if found.gallery_digest != wanted.gallery_digest:
        return "the galleries hold other tracklets (by name, identity and camera)"
    return ""


def difference_of_rows(former: Counter[Row], latter: Counter[Row]) -> str:
    """The first query that one side alone has, beside the other's of the same name."""
    first = next(iter(former or latter))
    there = next((x for x in latter if former and x.name == first.name), None)
    if there:
        return f"the query {first} is {there} in the latter"
    counts = f"only in the former: {former.total()}, only in the latter: {latter.total()}"
    return f"queries {counts}, {first} for one"


def in_order_of(found: Ranked, wanted: Ranked) -> Ranked:
    """The same queries in another order; queries with equal rows keep theirs."""
    if found.rows == wanted.rows:
        return found
    own, other = (sorted(range(len(x.rows)), key=x.rows.__getitem__) for x in (found, wanted))
    order = np.empty(len(own), int)
    order[other] = own
    r = found.result
    columns = {name: getattr(r, name)[order] for name in ("ap", "inp", "first", "valid")}
    return found._replace(rows=wanted.rows, result=r._replace(**columns))
