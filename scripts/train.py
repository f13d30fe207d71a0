"""Train a method and evaluate it: python scripts/train.py --config configs/synthetic.py

The same command continues a run that was stopped. Exit status: 0 done, 2 bad input, 75 stopped by
Ctrl-C or SIGTERM with everything saved.
"""

import jax

from dinogrl_jax.data import datasets
from dinogrl_jax.data.pipeline import training_batches
from dinogrl_jax.data.tracklets import labels
from dinogrl_jax.devices import compiling, hosts, memory, sharding
from dinogrl_jax.interface import command_line
from dinogrl_jax.interface.errors import run
from dinogrl_jax.interface.files import write_json
from dinogrl_jax.methods import METHODS
from dinogrl_jax.retrieval.embedding import (
    embeddings,
    figures,
    make_embed,
    make_maps,
    maps_picture,
    mean_mAP,
)
from dinogrl_jax.retrieval.protocols import protocol_lines
from dinogrl_jax.training import checkpoint, workdir
from dinogrl_jax.training.guard import Guard
from dinogrl_jax.training.interruption import STOPPED, Interruption
from dinogrl_jax.training.summary import DIRECTIONS, Summary, TrainingLog, results_table
from dinogrl_jax.training.train import due, make_step, started


def main() -> int:
    config, folder = command_line.config_and_workdir()
    memory.keep_freed()
    hosts.connect(config.hosts)
    compiling.keep_compiled()
    train_set, test_set = datasets.read(config.data)
    label_of = labels(train_set)
    folder, manager = workdir.opened(folder, config)
    mesh = sharding.device_mesh(config.mesh.fsdp)
    sharding.check_batch(config, mesh)
    model = METHODS[config.method].Model(config.model, len(label_of))
    state, metadata = started(model, config, list(label_of), manager, mesh)
    memory.give_back()
    step, embed = make_step(model, config, mesh), make_embed(model, config, mesh)
    maps = make_maps(model)

    t, first = config.train, int(state.step)
    shows_maps = "gait" in config.model.streams and jax.process_count() == 1
    last = max(t.epochs * t.steps_per_epoch, first)
    print(
        f"{folder}: {len(train_set)} training tracklets of {len(label_of)} identities, "
        f"{len(test_set)} test tracklets, {mesh.size} devices, steps {first} to {last}"
    )
    batches = training_batches(
        train_set,
        label_of,
        config,
        start_step=first,
        steps=last - first,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    with Interruption() as stop, batches:
        summary = Summary(folder)
        log = TrainingLog(config, summary, first, last)
        agreement = hosts.Agreement(mesh)
        guard = Guard(t.not_finite, batches.recipe.names, folder / "not_finite.jsonl")
        for number, batch in enumerate(batches, first + 1):
            state, terms = step(state, *sharding.placed((batch.frames, batch.labels), mesh))
            guard.step(number, terms)
            log.step(number, terms)
            end, stopped = number == last, agreement(stop.requested)
            evaluated = end or due(t.evaluate_every, number, t)
            metadata = metadata._replace(step=number, figures=None)
            if evaluated:
                embedding = embeddings(embed, state.variables, test_set, config, mesh)
                found = figures(embedding, test_set, config)
                metadata = metadata.scored(found, mean_mAP(found))
                log.evaluation(number, found)
            if shows_maps and (end or due(t.pictures_every, number, t)):
                picture = maps_picture(maps, state.variables, test_set, config)
                summary.picture("maps", picture, number)
            if evaluated or stopped or due(t.checkpoint_every, number, t):
                checkpoint.save(manager, state.variables, metadata, state.training)
            if stopped and not end:
                guard.finish()
                checkpoint.finish(manager)
                print(f"stopped and saved at step {number}; the same command continues the run")
                return STOPPED
    guard.finish()
    checkpoint.finish(manager)
    if guard.skipped:
        print(f"{guard.skipped} batches skipped, see {guard.file}")
    if batches.replaced:
        print(
            f"{len(batches.replaced)} unreadable frames, {batches.replaced.total()} times replaced"
        )
    results = workdir.results(manager, config.evaluation.protocol)
    if hosts.first():
        write_json(folder / "results.json", results)
    e, found = config.evaluation, {name: results[name] for name in DIRECTIONS if name in results}
    print(results_table(results), *protocol_lines(e.protocol, e.camera_filter, found), sep="\n")
    return 0


if __name__ == "__main__":
    run(main)
