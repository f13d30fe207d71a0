"""A training from its first step, or the one after its last checkpoint, to its last."""

from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import jax
import orbax.checkpoint as ocp
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dinogrl_jax import methods
from dinogrl_jax.data import datasets, tracklets
from dinogrl_jax.data.pipeline import Batches, sweep_batches, training_batches
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.devices import hosts, memory, sharding
from dinogrl_jax.interface.files import write_json
from dinogrl_jax.methods.contract import Clips, Facts
from dinogrl_jax.retrieval.embedding import (
    best_figure,
    configured_figures,
    direction_and_figure,
    embeddings,
    make_embed,
)
from dinogrl_jax.retrieval.pictures import make_pictures, picture_of_modalities
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.guard import Guard
from dinogrl_jax.training.interruption import Interruption
from dinogrl_jax.training.log import Summary, TrainingLog, parameter_table
from dinogrl_jax.training.run_folder import run_folder, run_results, state_to_train
from dinogrl_jax.training.state import State
from dinogrl_jax.training.step import Terms, make_step
from dinogrl_jax.training.sweep import Sweeper


def train(config: ConfigDict, folder: str | Path) -> dict | None:
    """Train a method, and evaluate it; a run that the folder holds continues.

    Returns the content of results.json, or None where Ctrl-C or SIGTERM stopped the run, with
    everything saved.

    Raises InputError for settings, data and files that cannot be used.
    """
    method = methods.named(config.method)
    data = read_data(method, config)
    direction_and_figure(config.evaluation.best)
    mesh = sharding.device_mesh(config.mesh.fsdp)
    sharding.check_batch(config, mesh)
    model = method.Model(config, data.facts)
    path, manager = run_folder(folder, config)
    metadata = checkpoint.Metadata(config, list(data.label_of), list(data.facts.cameras))
    state, metadata = state_to_train(method, model, config, metadata, manager, mesh)
    memory.give_back()
    step = make_step(method, model, config, mesh)
    sweeper = Sweeper(method, model, config, mesh, data.sweep_batches)

    first = int(state.step)
    last = max(config.train.epochs * config.train.steps_per_epoch, first)
    print(parameter_table(state))
    print(
        f"{path}: {len(data.train)} training tracklets of {data.facts.identities} identities, "
        f"{len(data.test)} test tracklets, {mesh.size} devices, steps {first} to {last}"
    )
    with Interruption() as stop, data.training_batches(first, last) as batches:
        run = Run(method, model, config, data, mesh, path, manager, metadata, batches, first, last)
        for number, batch in enumerate(batches, first + 1):
            epoch, place = divmod(number - 1, config.train.steps_per_epoch)
            if place == 0:
                state = sweeper(state, epoch)
            *clips, labels = sharding.placed((batch.frames, batch.cameras, batch.labels), mesh)
            state, terms = step(state, Clips(*clips), labels)
            if run.stopped_after(number, state, terms, stop.requested):
                return None
    return run.results()


class Data(NamedTuple):
    """The tracklets of a training, and what they tell the model."""

    config: ConfigDict
    train: list[Tracklet]
    test: list[Tracklet]
    label_of: dict[int | str, int]  # of identities
    facts: Facts

    def training_batches(self, first: int, last: int) -> Batches:
        """The batches of the steps from `first`, counted from 0, up to `last`, for this process."""
        return training_batches(
            self.train,
            self.label_of,
            self.config,
            start_step=first,
            steps=last - first,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def sweep_batches(self, size: int) -> Batches:
        """Every training tracklet once, for this process."""
        return sweep_batches(
            self.train,
            self.label_of,
            self.config,
            size,
            multiple=jax.device_count(),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )


def read_data(method: ModuleType, config: ConfigDict) -> Data:
    """What the configuration's section `data` names.

    Raises InputError for what is missing or wrong on disk, and for training tracklets of unknown
    cameras where the method needs them.
    """
    train_set, test_set = datasets.read(config.data)
    if method.NEEDS_CAMERAS:
        tracklets.check_cameras(train_set, method.TITLE)
    label_of = tracklets.labels(train_set)
    facts = Facts(len(label_of), tracklets.cameras(train_set))
    return Data(config, train_set, test_set, label_of, facts)


class Run:
    """What happens after the steps of a training: the log, evaluations, pictures, checkpoints."""

    def __init__(
        self,
        method: ModuleType,
        model: nn.Module,
        config: ConfigDict,
        data: Data,
        mesh: Mesh,
        folder: Path,
        manager: ocp.CheckpointManager,
        metadata: checkpoint.Metadata,
        batches: Batches,
        first: int,
        last: int,
    ) -> None:
        self.config, self.data, self.mesh, self.last = config, data, mesh, last
        self.folder, self.manager, self.metadata, self.batches = folder, manager, metadata, batches
        self.embed = make_embed(method, model, config, mesh)
        alone = jax.process_count() == 1  # each of several would see its share of a batch only
        self.pictures = {
            name: make_pictures(picture, model, config)
            for name, picture in (method.pictures(config) if alone else {}).items()
        }
        self.summary = Summary(folder)
        self.log = TrainingLog(config, method.groups(config), self.summary, first, last)
        self.agreement = hosts.Agreement(mesh)
        not_finite = folder / "not_finite.jsonl"
        self.guard = Guard(config.train.not_finite, batches.recipe.names, not_finite)

    def stopped_after(self, number: int, state: State, terms: Terms, requested: bool) -> bool:
        """Do what is due after a step, counted from 1; whether the run stops here, saved.

        requested: whether this process was asked to stop.
        """
        t, end = self.config.train, number == self.last
        self.guard.step(number, terms)
        self.log.step(number, terms)
        stopped = self.agreement(requested)
        evaluated = end or self.due(t.evaluate_every, number)
        self.metadata = self.metadata._replace(step=number, figures=None)
        if evaluated:
            self.evaluate(number, state)
        if end or self.due(t.pictures_every, number):
            self.draw(number, state)
        if evaluated or stopped or self.due(t.checkpoint_every, number):
            checkpoint.save(self.manager, state.variables, self.metadata, state.training)
        if not stopped or end:
            return False
        self.finish()
        print(f"stopped and saved at step {number}; the same command continues the run")
        return True

    def due(self, every: int, number: int) -> bool:
        """Whether a step is the last of an epoch whose number, from 1, is a multiple of `every`."""
        return bool(every) and number % (every * self.config.train.steps_per_epoch) == 0

    def evaluate(self, number: int, state: State) -> None:
        """Figures of the test set, for the log and for the next checkpoint."""
        config, test = self.config, self.data.test
        descriptors = embeddings(self.embed, state.variables, test, config, self.mesh)
        figures = configured_figures(descriptors, test, config)
        self.metadata = self.metadata.scored(figures, best_figure(figures, config.evaluation.best))
        self.log.evaluation(number, figures)

    def draw(self, number: int, state: State) -> None:
        """The method's pictures of a test tracklet of each modality, for the log."""
        for name, pictures in self.pictures.items():
            picture = picture_of_modalities(pictures, state.variables, self.data.test)
            self.summary.picture(name, picture, number)

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
        results = run_results(self.manager, self.config.evaluation.protocol)
        if hosts.first():
            write_json(self.folder / "results.json", results)
        return results
