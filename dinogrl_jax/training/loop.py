"""A training from its first step, or the one after its last checkpoint, to its last."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from dinogrl_jax import methods
from dinogrl_jax.data import datasets, tracklets
from dinogrl_jax.data.checks import usable
from dinogrl_jax.data.pipeline import BadBatch, Batches, sweep_batches, training_batches
from dinogrl_jax.data.problems import Notes
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.devices import hosts, memory, sharding
from dinogrl_jax.interface.checks import checked_config
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.files import write_json
from dinogrl_jax.interface.locks import lock
from dinogrl_jax.interface.progress import recorded
from dinogrl_jax.methods.contract import Clips, Facts, check_tracklets
from dinogrl_jax.retrieval import embedding, protocols, scoring
from dinogrl_jax.retrieval.comparison.queries import scored_queries, write_queries
from dinogrl_jax.retrieval.pictures import (
    make_pictures,
    picture_of_batch,
    picture_of_modalities,
)
from dinogrl_jax.retrieval.report.subjects import subject_of_tracklets
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.guard import Guard
from dinogrl_jax.training.interruption import Interruption, Stopped
from dinogrl_jax.training.log import TrainingLog, parameter_table
from dinogrl_jax.training.run_folder import run_folder, run_results, state_to_train
from dinogrl_jax.training.state import Setup, State
from dinogrl_jax.training.step import Terms, make_step
from dinogrl_jax.training.sweep import Sweeper

WHERE_MEMORY_GOES = (
    "lower data.identities_per_batch or data.tracklets_per_identity, or set model.remat=blocks, "
    "optimizer.micro_batches, mesh.fsdp; for evaluation evaluation.tracklets_per_batch"
)


def train(config: ConfigDict, folder: str | Path) -> dict | None:
    """Train a method, and evaluate it; a run that the folder holds continues.

    Returns the content of results.json, or None where Ctrl-C or SIGTERM stopped the run, with
    everything saved.

    Raises InputError for settings, data and files that cannot be used.
    """
    config = checked_config(config)
    method = methods.named(config.method)
    mesh = sharding.device_mesh(config.mesh.fsdp)
    sharding.check_batch(config, mesh)
    train_set, test_set, lines = usable_sets(config)
    if method.NEEDS_CAMERAS:
        tracklets.check_cameras(train_set, method.TITLE)
    label_of = tracklets.labels(train_set)
    facts = Facts(len(label_of), tracklets.cameras(train_set))
    check_tracklets(method, test_set, facts, config)
    setup = Setup(method, method.Model(config, facts), config, mesh)
    path = Path(folder).expanduser().absolute()
    with contextlib.ExitStack() as stack:
        if hosts.first():
            stack.enter_context(lock(path))
            stack.enter_context(recorded(path / "log.txt"))
        stack.enter_context(memory.shortage_named(WHERE_MEMORY_GOES))
        return trained(setup, train_set, label_of, test_set, path, lines)


def usable_sets(config: ConfigDict) -> tuple[list[Tracklet], list[Tracklet], list[str]]:
    """Training and test tracklets, and lines on what is left out of them and on what is odd.

    Raises InputError where training with them, or its first evaluation, would not work.
    """
    left_out, e = Notes(), config.evaluation
    train_set, test_set = datasets.read(config.data, left_out)
    filtered = protocols.filters_cameras(e.protocol, e.camera_filter)
    rule = protocols.PROTOCOLS[e.protocol]
    asked = usable.demands(config, filtered, rule.visible_multiple, rule.exchanged)
    root = config.data.root
    return train_set, test_set, usable.check_usable(train_set, test_set, asked, left_out, root)


def trained(
    setup: Setup,
    train_set: Sequence[Tracklet],
    label_of: Mapping[int | str, int],
    test_set: Sequence[Tracklet],
    folder: Path,
    lines: Sequence[str],
) -> dict | None:
    """The training itself, in a folder that is held, as `train`; lines: to say first."""
    config, mesh = setup.config, setup.mesh
    path, manager = run_folder(folder, config)
    for line in lines:
        print(line)
    metadata = checkpoint.Metadata(config, list(label_of), list(tracklets.cameras(train_set)))
    state, metadata = state_to_train(setup, metadata, manager)
    memory.give_back()
    step = make_step(*setup)
    labelled = train_set, label_of, config
    share = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    sweep = partial(sweep_batches, *labelled, multiple=jax.device_count(), **share)
    sweeper = Sweeper(setup, sweep)

    first, per_epoch = int(state.step), config.train.steps_per_epoch
    last = max(config.train.epochs * per_epoch, first)
    print(parameter_table(state))
    print(
        f"{path}: {len(train_set)} training tracklets of {len(label_of)} identities, "
        f"{len(test_set)} test tracklets, {sharding.device_names(mesh)}, steps {first} to {last}",
        f"curves: tensorboard --logdir {path}",
        *["compiling, which takes a minute or more the first time"] * (first < last),
        sep="\n",
        flush=True,
    )
    with (
        checkpoint.whole(manager),
        Interruption() as stop,
        training_batches(*labelled, start_step=first, steps=last - first, **share) as batches,
    ):
        run = Run(setup, test_set, path, manager, metadata, batches, range(first, last), stop)
        try:
            run.evaluation_left_over(state)
            for number, batch in enumerate(batches, first + 1):
                if number == first + 1:
                    run.log.picture(first, "batch", picture_of_batch(batch.frames))
                epoch, place = divmod(number - 1, per_epoch)
                if place == 0:
                    state = sweeper(state, epoch, run.check)
                *clips, labels = sharding.placed((batch.frames, batch.cameras, batch.labels), mesh)
                state, terms = step(state, Clips(*clips), labels)
                run.after_step(number, state, terms)
        except Stopped:
            number = run.save(state)
            saved = f"saved at step {number}" if number else "nothing is lost"
            print(f"stopped and {saved}; the same command continues the run")
            return None
        except BadBatch as error:
            if not (number := run.save(state)):
                raise
            advice = "from where the same command continues once that is mended"
            raise InputError(f"{error}; saved at step {number}, {advice}") from error
        return run.results()


@dataclasses.dataclass
class Run:
    """What happens after the steps of a training: the log, evaluations, pictures, checkpoints."""

    setup: Setup
    test: list[Tracklet]
    folder: Path
    manager: ocp.CheckpointManager
    metadata: checkpoint.Metadata  # of the last step
    batches: Batches
    steps: range
    interruption: Interruption

    def __post_init__(self) -> None:
        method, model, config, mesh = self.setup
        self.embed = embedding.make_embed(method, model, config, mesh)
        alone = jax.process_count() == 1  # each of several would see its share of a batch only
        pictures = method.pictures(config) if alone else {}
        self.pictures = {name: make_pictures(x, model, config) for name, x in pictures.items()}
        groups, first, last = method.groups(config), self.steps.start, self.steps.stop
        self.log = TrainingLog(self.folder, config.train, groups, first, last)
        self.agreement = hosts.Agreement(mesh)
        self.log.settings(config)
        not_finite = self.folder / "not_finite.jsonl"
        self.guard = Guard(config.train.not_finite, self.batches.recipe.names, not_finite)

    def check(self) -> None:
        """Raise Stopped if any process was asked to stop; all processes call this equally often."""
        if self.agreement(self.interruption.requested):
            raise Stopped

    def after_step(self, number: int, state: State, terms: Terms) -> None:
        """Do what is due after a step, counted from 1; Stopped where the run was asked to."""
        t = self.setup.config.train
        self.guard.step(number, terms)
        self.log.step(number, terms)
        self.metadata = self.metadata._replace(step=number, figures=None)
        if self.evaluation_due() or self.due(t.checkpoint_every):
            checkpoint.save(self.manager, state.variables, self.metadata, state.training)
        if self.evaluation_due():
            self.evaluate(state)
        if self.ended() or self.due(t.pictures_every):
            for name, pictures in self.pictures.items():
                picture = picture_of_modalities(pictures, state.variables, self.test)
                self.log.picture(number, name, picture)
        if not self.ended():
            self.check()

    def evaluate(self, state: State) -> None:
        """The figures of a state whose checkpoint has been saved, beside which they are written."""
        config, mesh = self.setup.config, self.setup.mesh
        given = self.embed, state.variables, self.test, config, mesh
        descriptors = embedding.embeddings(*given, between=self.check)
        evaluation = embedding.configured_evaluation(descriptors, self.test, config)
        figures = scoring.direction_figures(evaluation)
        score = embedding.best_figure(figures, config.evaluation.best)
        self.metadata = self.metadata.scored(figures, score)
        checkpoint.save_figures(self.manager, self.metadata)
        if self.metadata.is_best and hosts.first():
            subject = subject_of_tracklets(self.test, config.data.root)
            source = {"checkpoint": "best", "step": self.metadata.step}
            write_queries(self.folder, scored_queries(evaluation, subject, source, config))
        self.log.evaluation(self.metadata.step, figures)

    def evaluation_left_over(self, state: State) -> None:
        """Evaluate the checkpoint that the run goes on from, if it was stopped before that."""
        if self.metadata.step and self.metadata.figures is None and self.evaluation_due():
            self.evaluate(state)

    def evaluation_due(self) -> bool:
        return self.ended() or self.due(self.setup.config.train.evaluate_every)

    def ended(self) -> bool:
        return self.metadata.step == self.steps.stop

    def due(self, every: int) -> bool:
        """Whether the last step ends an epoch whose number, from 1, is a multiple of `every`."""
        per_epoch = self.setup.config.train.steps_per_epoch
        return bool(every) and self.metadata.step % (every * per_epoch) == 0

    def save(self, state: State) -> int:
        """Save a state, unless it has been saved; returns the step of the last one, or 0.

        Of several processes none may save alone, as behind an error that only one of them met.
        """
        number, latest = self.metadata.step, self.manager.latest_step() or 0
        if number > latest and (jax.process_count() == 1 or self.interruption.requested):
            checkpoint.save(self.manager, state.variables, self.metadata, state.training)
            latest = number
        self.finish()
        return latest

    def finish(self) -> None:
        """Look at the last step, and wait for the last checkpoint."""
        self.guard.finish()
        checkpoint.finish(self.manager)

    def results(self) -> dict:
        """The content of results.json, which is written."""
        self.finish()
        if self.guard.skipped:
            print(f"{self.guard.skipped} batches skipped, see {self.guard.file}")
        if replaced := self.batches.replaced:
            print(f"{len(replaced)} unreadable frames, {replaced.total()} times replaced")
        results = run_results(self.manager, self.setup.config.evaluation.protocol)
        if hosts.first():
            write_json(self.folder / "results.json", results)
        return results
