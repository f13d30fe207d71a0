"""The runs that are compared: read, named, and of the same queries."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval import feature_file, scoring
from dinogrl_jax.retrieval.comparison.queries import FILE, Ranked, Scored, read_queries, scored

MOST = 8  # runs, as many as a chart's curves can be told apart


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
    if not 2 <= len(places) <= MOST:
        raise InputError(f"command line: say 2 to {MOST} runs, not {len(places)}")
    names = run_names(places)
    runs = [Run(n, read_scored(p, options)) for n, p in zip(names, places, strict=True)]
    return [runs[0], *(aligned(run, runs[0]) for run in runs[1:])]


def run_names(places: Sequence[str]) -> list[str]:
    """The folders' own names, or whole paths where two have the same."""
    paths = [Path(place).absolute() for place in places]
    own = Counter(path.stem if path.suffix == ".npz" else path.name for path in paths)
    for path, count in Counter(map(Path.resolve, paths)).items():
        if count > 1:
            raise InputError(f"command line: {path} is there {count} times: name each run once")
    short = [path.stem if path.suffix == ".npz" else path.name for path in paths]
    return [name if own[name] == 1 else place for name, place in zip(short, places, strict=True)]


def read_scored(place: str, options: scoring.ScoringOptions) -> Scored:
    """What the queries of a run reached; InputError says which command finds that out."""
    path = Path(place)
    if path.is_file():
        return scored_features(path, options)
    if (path / FILE).exists():
        return read_queries(path / FILE)
    if not path.is_dir():
        raise InputError(f"{place}: there is no such run; say its folder, or a features file")
    if len(files := sorted(path.glob("*.npz"))) == 1:
        return scored_features(files[0], options)
    raise InputError(f"{place} has no {FILE}: run python scripts/evaluate.py --workdir {place}")


def scored_features(path: Path, options: scoring.ScoringOptions) -> Scored:
    """What the queries of a features file reach."""
    f = feature_file.read_features(str(path))
    evaluation = scoring.evaluation_of(f.embedding, f.label_columns, options, f.halves)
    return scored(evaluation, f.path.tolist(), {"features": path.name})


def aligned(run: Run, first: Run) -> Run:
    """A run with its queries in the order of the first one's; InputError if they differ."""
    who, (own, other) = f"{run.name} and {first.name}", (run.scored, first.scored)
    if own.options["camera_filter"] != other.options["camera_filter"]:
        raise InputError(f"{who}: only one was scored with the camera filter: score both alike")
    if own.directions.keys() != other.directions.keys():
        raise InputError(f"{who}: one of them has queries in one direction only")
    directions = {}
    for name, wanted in other.directions.items():
        found = own.directions[name]
        if problem := difference_of_queries(found, wanted):
            words = name.replace("_", " ")
            raise InputError(f"{who}: {words}, {problem}: evaluate both on the same test set")
        directions[name] = in_order_of(found, wanted)
        if (directions[name].result.valid != wanted.result.valid).any():
            raise InputError(f"{who}: {name.replace('_', ' ')}, other queries have a match")
    return run._replace(scored=own._replace(directions=directions))


def difference_of_queries(found: Ranked, wanted: Ranked) -> str:
    """How two sets of queries, or their galleries, differ; empty where they do not."""
    more, less = (Counter(x) for x in (found.names, wanted.names))
    if more != less:
        alone = [(x - y).total() for x, y in ((more, less), (less, more))]
        example = next(iter((more - less) or (less - more)))
        return (
            f"queries only in the former: {alone[0]}, only in the latter: {alone[1]}, "
            f"{example[:80]!r} for one"
        )
    if found.result.gallery != wanted.result.gallery:
        return f"the galleries have {found.result.gallery} and {wanted.result.gallery} tracklets"
    return ""


def in_order_of(found: Ranked, wanted: Ranked) -> Ranked:
    """The same queries in another order; those of one name keep theirs."""
    if found.names == wanted.names:
        return found
    own, other = (np.argsort(np.array(x.names), kind="stable") for x in (found, wanted))
    order = np.empty_like(own)
    order[other] = own
    r = found.result
    columns = {name: getattr(r, name)[order] for name in ("ap", "inp", "first", "valid")}
    return Ranked(wanted.names, r._replace(**columns))
