"""Evaluate a trained run, or any descriptors, and write a report that opens in a browser:

    python scripts/evaluate.py --config configs/synthetic.py --workdir DIR
    python scripts/evaluate.py --features features.npz --protocol vcm --out DIR

The arrays of a features file: embedding [n, parts, channels] or [n, channels], identity, camera,
modality ("visible" or "infrared"), and if need be role ("query", "gallery" or "both") and path;
scripts/extract.py writes one. Writes results.json and report.html to --out; without it a run gets
evaluation.json and report.html in its own folder, a features file in a folder beside it.
"""

from collections.abc import Callable
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict

from dinogrl_jax import methods
from dinogrl_jax.config import FREE_AT_EVALUATION
from dinogrl_jax.data import datasets
from dinogrl_jax.devices import compiling, memory, sharding
from dinogrl_jax.interface import command_line
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.interface.files import write_json
from dinogrl_jax.methods.contract import Picture
from dinogrl_jax.retrieval import embedding, feature_file, scoring
from dinogrl_jax.retrieval.distances import FORMULAS
from dinogrl_jax.retrieval.pictures import make_pictures
from dinogrl_jax.retrieval.protocols import PROTOCOLS, filters_cameras
from dinogrl_jax.retrieval.report import subjects, write
from dinogrl_jax.retrieval.report.subjects import Subject
from dinogrl_jax.retrieval.tables import figures_table
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.run_folder import check_same

WHICH = flags.DEFINE_string("which", "last", "checkpoint: last, best, or a step's number")
FEATURES = flags.DEFINE_string("features", "", "score the descriptors of this .npz instead")
PROTOCOL = flags.DEFINE_string("protocol", "", f"{', '.join(PROTOCOLS)}; default the run's, or vcm")
DISTANCE = flags.DEFINE_string(
    "distance", "", f"{', '.join(FORMULAS)}; default the run's, or part_euclidean"
)
CAMERA_FILTER = flags.DEFINE_string(
    "camera_filter", "", "ignore a query's own identity and camera: on, off, protocol"
)
RERANK = flags.DEFINE_bool("rerank", False, "k-reciprocal re-ranking")
TEMPORAL = flags.DEFINE_bool("temporal", False, "AuxNet's re-ranking across halves of tracklets")
OUT = flags.DEFINE_string("out", "", "folder for results.json and report.html")
FRAMES = flags.DEFINE_string("frames", "", "folder that paths in --features start from")
REPORT = flags.DEFINE_bool("report", True, "write report.html")

# What was found, what the report shows, where it came from, and the file to write.
Found = tuple[scoring.Evaluation, Subject, dict, Path]


def scoring_options(protocol: str, camera_filter: str, distance: str) -> scoring.ScoringOptions:
    """The flags, and where they say nothing the given names."""
    protocol = PROTOCOL.value or protocol
    filtered = filters_cameras(protocol, CAMERA_FILTER.value or camera_filter)
    rerank = "temporal" if TEMPORAL.value else "k_reciprocal" if RERANK.value else "none"
    return scoring.ScoringOptions(protocol, filtered, DISTANCE.value or distance, rerank)


def of_features(path: str) -> Found:
    """The evaluation of a file of features."""
    features = feature_file.read_features(path)
    how = scoring_options("vcm", "protocol", "part_euclidean")
    found = scoring.evaluation_of(features.embedding, features.label_columns, how, features.halves)
    subject = subjects.subject_of_features(features, FRAMES.value or str(Path(path).parent))
    out = Path(OUT.value or Path(path).with_suffix(""))
    return found, subject, {"features": Path(path).name}, out / "results.json"


def of_checkpoint(config: ConfigDict, folder: str) -> Found:
    """The same for a checkpoint, on the test set."""
    manager = checkpoint.open_folder(f"{folder}/checkpoints")
    step = checkpoint.chosen_step(manager, WHICH.value)
    trained = checkpoint.saved_metadata(manager, step)
    check_same(config, trained.config, folder, FREE_AT_EVALUATION)
    method, mesh = methods.named(config.method), sharding.device_mesh()
    model = method.Model(config, trained.facts)
    variables = checkpoint.stored_variables(method, manager, step)
    variables = jax.device_put(variables, sharding.replicated(mesh))
    _, test_set = datasets.read(config.data)
    e = config.evaluation
    how = scoring_options(e.protocol, e.camera_filter, e.distance)
    embed = embedding.make_embed(method, model, config, mesh)
    sets = [test_set, *(embedding.halved_tracklets(test_set) if TEMPORAL.value else ())]
    made, *halves = (embedding.embeddings(embed, variables, x, config, mesh) for x in sets)
    columns = embedding.label_columns(test_set)
    found = scoring.evaluation_of(made, columns, how, tuple(halves) or None)

    def shown(picture: Picture) -> Callable:
        pictures = make_pictures(picture, model, config)
        return lambda rows: pictures(variables, [test_set[row] for row in rows])

    subject = subjects.subject_of_tracklets(test_set, config.data.root)._replace(
        part_names=method.part_names(config),
        pictures={x.caption or name: shown(x) for name, x in method.pictures(config).items()},
    )
    about = {"checkpoint": WHICH.value, "step": step}
    file = Path(OUT.value, "results.json") if OUT.value else Path(folder, "evaluation.json")
    return found, subject, about, file


def main() -> None:
    config = command_line.config_from_flags()
    if FEATURES.value and config is not None:
        raise InputError("--features are scored without --config: leave one out")
    memory.keep_freed()
    compiling.keep_compiled()
    if FEATURES.value:
        found, subject, about, file = of_features(FEATURES.value)
    else:
        found, subject, about, file = of_checkpoint(config, command_line.workdir_of(config))
    results = {**scoring.direction_figures(found), **scoring.evaluation_facts(found), **about}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, results)
    table = figures_table(results, scoring.headline(results))
    print(table, *scoring.skipped_lines(results), sep="\n")
    if REPORT.value:
        report = file.with_name("report.html")
        write.write_report(report, found, subject, results)
        print(f"{report}: what was retrieved, opens in a browser")


if __name__ == "__main__":
    run(main)
