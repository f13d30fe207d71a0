"""Evaluate a model, or any descriptors, and write a report that opens in a browser:

    dinogrl_jax evaluate --workdir DIR
    dinogrl_jax evaluate --features features.npz --protocol vcm --out DIR

DIR is a run, a model that dinogrl_jax convert made, or the folder of a step of either. Its settings
are taken, or those of --config; --config.data.root=… and the like change them.

The arrays of a features file: embedding [n, parts, channels] or [n, channels], identity, camera,
modality ("visible" or "infrared"), and if need be role ("query", "gallery" or "both"), path, and
the name of a distance; dinogrl_jax extract writes one. Writes results.json, queries.json (for
dinogrl_jax compare) and report.html to --out; without it a model gets evaluation.json and the
others in its own folder, a features file in a folder beside it. Into a run's own folder
queries.json goes only as training writes it: of the best checkpoint, with the run's own data and
scoring.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import jax
from absl import flags
from ml_collections import ConfigDict

from dinogrl_jax import methods
from dinogrl_jax.config import FREE_AT_EVALUATION, differences
from dinogrl_jax.data import datasets
from dinogrl_jax.devices import compiling, memory, sharding
from dinogrl_jax.interface import command_line
from dinogrl_jax.interface.checks import expanded_path
from dinogrl_jax.interface.config_files import STORED
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.interface.files import write_json
from dinogrl_jax.methods.contract import Picture, check_tracklets, descriptor_variants
from dinogrl_jax.retrieval import embedding, feature_file, scoring
from dinogrl_jax.retrieval.comparison.queries import FILE, scored_queries, write_queries
from dinogrl_jax.retrieval.distances import FORMULAS, distance_formula
from dinogrl_jax.retrieval.pictures import make_pictures
from dinogrl_jax.retrieval.protocols import PROTOCOLS, filters_cameras
from dinogrl_jax.retrieval.report import subjects, write
from dinogrl_jax.retrieval.report.pairs import Pairs, evaluation_pairs
from dinogrl_jax.retrieval.report.subjects import Shown, Subject
from dinogrl_jax.retrieval.tables import figures_table
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.api.evaluation import evaluation_results
from dinogrl_jax.training.run_folder import check_same
from dinogrl_jax.training.stored import stored_model

WHICH = flags.DEFINE_string(
    "which", command_line.WHICH, "of a run's checkpoints: best, last, or a step's number"
)
FEATURES = flags.DEFINE_string("features", "", "score the descriptors of this .npz instead")
PROTOCOL = flags.DEFINE_string("protocol", "", f"{', '.join(PROTOCOLS)}; default the run's, or vcm")
DISTANCE = flags.DEFINE_string(
    "distance", "", f"{', '.join(FORMULAS)}; default the run's or the file's, or part_euclidean"
)
CAMERA_FILTER = flags.DEFINE_string(
    "camera_filter", "", "ignore a query's own identity and camera: on, off, protocol"
)
RERANK = flags.DEFINE_bool("rerank", False, "k-reciprocal re-ranking")
TEMPORAL = flags.DEFINE_bool("temporal", False, "AuxNet's re-ranking across halves of tracklets")
VARIANTS = flags.DEFINE_bool(
    "variants", False, "of a model: score other descriptors of its paper as well, if it has some"
)
OUT = flags.DEFINE_string("out", "", "folder for results.json and report.html")
FRAMES = flags.DEFINE_string("frames", "", "folder that paths in --features start from")
REPORT = flags.DEFINE_bool("report", True, "write report.html")
# Settings that decide how fast figures are made, and not which.
SAME_FIGURES = (
    "data.workers",
    "evaluation.tracklets_per_batch",
    "hosts.*",
    "mesh.*",
    "model.remat",
)


class Found(NamedTuple):
    evaluation: scoring.Evaluation
    subject: Subject  # what the report shows
    source: dict  # where it came from
    file: Path  # to write
    config: ConfigDict | None = None
    other: str = ""  # in what it differs from the evaluation whose queries the folder holds
    variants: Mapping[str, scoring.Evaluation] = {}  # of other descriptors, by name


def scoring_options(protocol: str, camera_filter: str, distance: str) -> scoring.ScoringOptions:
    """The flags, and where they say nothing the given names; InputError for unknown ones."""
    protocol, distance = PROTOCOL.value or protocol, DISTANCE.value or distance
    distance_formula(distance)
    filtered = filters_cameras(protocol, CAMERA_FILTER.value or camera_filter)
    rerank = "temporal" if TEMPORAL.value else "k_reciprocal" if RERANK.value else "none"
    return scoring.ScoringOptions(protocol, filtered, distance, rerank)


def of_features(path: str) -> Found:
    """The evaluation of a file of features."""
    how = scoring_options("vcm", "protocol", "part_euclidean")
    out = folder_of_results(path)
    features = feature_file.read_features(path)
    if not DISTANCE.value:
        how = how._replace(distance=features.distance)
    found = scoring.evaluation_of(features.embedding, features.label_columns, how, features.halves)
    frames = expanded_path(FRAMES.value, "--frames") or str(Path(path).parent)
    subject = subjects.subject_of_features(features, frames)
    return Found(found, subject, {"features": Path(path).name}, out / "results.json")


def folder_of_results(features: str) -> Path:
    """Where the results of a features file go; InputError where something else is there."""
    given = expanded_path(OUT.value, "--out")
    out = Path(given or Path(features).with_suffix(""))
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is no folder: choose another --out")
    if not given and (out / STORED).exists():
        raise InputError(f"{out} is a run, whose results stay: choose a folder with --out")
    return out


def of_checkpoint(config: ConfigDict, folder: str) -> Found:
    """The same for a stored model, on the test set."""
    manager, trained, place = stored_model(folder, WHICH.value)
    check_same(config, trained.config, folder, FREE_AT_EVALUATION)
    method, mesh = methods.named(config.method), sharding.device_mesh()
    e, model = config.evaluation, method.Model(config, trained.facts)
    how = scoring_options(e.protocol, e.camera_filter, e.distance)
    variants = descriptor_variants(method, config) if VARIANTS.value else {}
    if VARIANTS.value and not variants:
        raise InputError(f"command line: {method.TITLE} has one descriptor: leave out --variants")
    variables = checkpoint.stored_variables(method, manager, trained.step)
    variables = jax.device_put(variables, sharding.replicated(mesh))
    _, test_set = datasets.read(config.data)
    check_tracklets(method, test_set, trained.facts, config)
    embed = embedding.make_embed(method, model, config, mesh)
    sets = [test_set, *(embedding.halved_tracklets(test_set) if TEMPORAL.value else ())]
    made, *halves = (embedding.embeddings(embed, variables, x, config, mesh) for x in sets)
    columns = embedding.label_columns(test_set)

    def scored(channels: Sequence[int] | slice = slice(None)) -> scoring.Evaluation:
        chosen = tuple(x[..., channels] for x in halves) or None
        return scoring.evaluation_of(made[..., channels], columns, how, chosen)

    found = scored()
    of_variants = {name: scored(channels) for name, channels in variants.items()}

    def shown(name: str, picture: Picture) -> Shown:
        pictures = make_pictures(picture, model, config)

        def make(rows: Sequence[int]) -> Sequence:
            return pictures(variables, [test_set[row] for row in rows])

        return Shown(picture.caption or name, make, picture.rows, picture.columns)

    subject = subjects.subject_of_tracklets(test_set, config.data.root)._replace(
        part_names=method.part_names(config),
        pictures=[shown(*x) for x in method.pictures(config).items()],
    )
    source = {"checkpoint": WHICH.value, "step": trained.step}
    out = expanded_path(OUT.value, "--out")
    file = Path(out, "results.json") if out else place / "evaluation.json"
    other = "" if out else difference_from_training(folder, trained.config, config, how)
    return Found(found, subject, source, file, config, other, of_variants)


def difference_from_training(
    folder: str, trained: ConfigDict, config: ConfigDict, how: scoring.ScoringOptions
) -> str:
    """In what an evaluation differs from that of a run's training; empty where it does not."""
    if WHICH.value != command_line.WHICH or (Path(folder) / "metadata").is_dir():
        return "another checkpoint than the best"
    if how != embedding.configured_options(config):
        return "another scoring than the run's"
    return next(iter(differences(trained, config, SAME_FIGURES)), "")


def results_of(found: Found, pairs: Mapping[str, Pairs]) -> dict:
    """The content of results.json."""
    results = {
        **evaluation_results(found.evaluation, pairs),
        **found.source,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": checkpoint.versions(),
    }
    if found.variants:
        figures = {name: scoring.direction_figures(x) for name, x in found.variants.items()}
        results |= {"variants": figures}
    if config := found.config:
        results |= {
            "model": command_line.workdir_of(config),
            "data": {"name": config.data.dataset, "root": config.data.root},
            "settings": differences(methods.default(config.method), config, free=()),
        }
    return results


def config_of_model() -> ConfigDict | None:
    """The settings of the model in --workdir, if that is given."""
    folder = expanded_path(command_line.WORKDIR.value, "--workdir")
    return stored_model(folder, WHICH.value).metadata.config if folder else None


def main() -> None:
    config = command_line.config_from_flags(config_of_model)
    if FEATURES.value and config is not None:
        raise InputError("--features are scored without --config and --workdir: leave one out")
    if FEATURES.value and VARIANTS.value:
        raise InputError("--variants are of a model, not of --features: leave one out")
    if not FEATURES.value and config is None:
        raise InputError(
            "command line: say --workdir FOLDER, of a run or a converted model, or --features "
            "FILE; --help says more"
        )
    memory.keep_freed()
    compiling.keep_compiled()
    if FEATURES.value:
        found = of_features(expanded_path(FEATURES.value, "--features"))
    else:
        found = of_checkpoint(config, command_line.workdir_of(config))
    evaluation, subject, source, file, config, other, _ = found
    pairs = evaluation_pairs(evaluation)
    results = results_of(found, pairs)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{file.parent}: cannot be written ({error.strerror})") from error
    write_json(file, results)
    if not other:
        write_queries(file.parent, scored_queries(evaluation, subject, source, config))
    table = figures_table(results, scoring.headline(results))
    print(table, *scoring.skipped_lines(results), sep="\n")
    for name, figures in results.get("variants", {}).items():
        print(figures_table(figures, f"descriptor {name}"))
    if other:
        print(f"{file.with_name(FILE)}: not written ({other}); --out FOLDER has one")
    if REPORT.value:
        report = file.with_name("report.html")
        write.write_report(report, evaluation, pairs, subject, results)
        print(f"{report}: what was retrieved, opens in a browser")


if __name__ == "__main__":
    run(main)
