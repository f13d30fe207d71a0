"""Evaluate a trained run: python scripts/evaluate.py --config configs/synthetic.py --workdir DIR"""

from pathlib import Path

from absl import flags

from dinogrl_jax import checkpoint, command_line, compiling, sharding, workdir
from dinogrl_jax.data import datasets
from dinogrl_jax.errors import run
from dinogrl_jax.evaluate import embeddings, figures, loaded, make_embed
from dinogrl_jax.protocols import described
from dinogrl_jax.summary import results_table

WHICH = flags.DEFINE_string("which", "last", "checkpoint: last, best, or a step's number")


def main() -> int:
    config, folder = command_line.parsed()
    manager = checkpoint.open_folder(f"{folder}/checkpoints")
    step = checkpoint.chosen_step(manager, WHICH.value)
    compiling.keep_compiled()
    mesh = sharding.device_mesh()
    model, variables, trained = loaded(manager, step, mesh)
    workdir.check_same(config, trained.config, folder)
    _, test_set = datasets.read(config.data)
    embed = make_embed(model, config, mesh)
    embedding = embeddings(embed, variables, test_set, config, mesh)
    found = figures(embedding, test_set, config)
    results = workdir.described(found, config.evaluation.protocol, WHICH.value, step)
    workdir.write_json(Path(folder) / "evaluation.json", results)
    e = config.evaluation
    print(results_table(results), *described(e.protocol, e.camera_filter, found), sep="\n")
    return 0


if __name__ == "__main__":
    run(main)
