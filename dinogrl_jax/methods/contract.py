"""What a method tells the rest of the package: the names that its folder has, and their types.

A method is a folder of `methods/` and a line of `methods.METHODS`. Nothing else knows its name: who
needs it is given the module, and uses what `Method` lists.
"""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from dinogrl_jax.data.tracklets import MODALITIES, Tracklet
from dinogrl_jax.weights.rules import Dropped, Rule

Variables = Mapping[str, Any]  # collection → tree: "params", "batch_stats", memories of any name


class Facts(NamedTuple):
    """What the training data tell a model: how many rows its classifiers and tables have."""

    identities: int
    cameras: tuple[int, ...] = ()  # the data set's numbers, in the order of a table's rows


@struct.dataclass
class Clips:
    """What a model sees: clips of b pairs of tracklets, or of b tracklets of one modality.

    The fields have no types: trees of shapes, of shardings and of other axes have this form too.
    """

    frames: Any  # Float[Array, "b m t h w 3"], normalised
    camera: Any  # Int[Array, "b m"], as the data set numbers it; -1 unknown
    modalities: tuple[str, ...] = struct.field(pytree_node=False, default=MODALITIES)  # of axis m


class Group(NamedTuple):
    """Parameters that are trained alike: those whose whole path below "params" fits the pattern.

    The first group that fits counts. What fits none, or one without a rate, is frozen: it has no
    gradient, no decay and no place in the optimiser.
    """

    pattern: str  # a regular expression: r"backbone/.*"
    rate: Callable[[Int[Array, ""]], Float[Array, ""]] | None  # step, from 0 → learning rate
    decay: float = 0.0  # weight decay
    decoupled: bool = False  # decay beside the gradient (AdamW), not in it (Adam)


class Made(NamedTuple):
    """What the training loss returns beside itself."""

    terms: dict[str, Float[Array, ""]]  # by name, unweighted; "total" is the loss
    collections: dict[str, Any]  # of variables, those that changed: statistics, memories


class Sweep(NamedTuple):
    """A pass over all training tracklets before an epoch, which changes collections.

    Each tracklet comes once, as one clip that is not augmented, visible ones first; batches hold
    one modality, the last is filled up. All functions are pure and are jitted; sweeps that are
    equal, function by function, are compiled once.
    """

    tracklets: int  # in a batch
    begin: Callable[[Variables], Any]  # → what is gathered, before the first batch
    # (variables, gathered, clips, labels [b], valid [b]) → (changed collections, gathered)
    step: Callable[[Variables, Any, Clips, Array, Bool[Array, " b"]], tuple[dict, Any]]
    end: Callable[[Variables, Any], dict]  # → changed collections, after the last batch
    # In an order and with training frames that are drawn for each epoch; else in the order of the
    # data set, with test frames.
    random: bool = False


class Picture(NamedTuple):
    """A picture of what a model sees in clips, for the log and for the report."""

    # (model, variables, clips of one modality) → arrays whose first axis is b; is jitted
    compute: Callable[[nn.Module, Variables, Clips], Any]
    # (frames [n, t, h, w, 3], those arrays of n clips) → one picture of each, in the same colours
    draw: Callable[[Float[np.ndarray, "n t h w 3"], Any], Sequence[np.ndarray]]
    caption: str = ""  # what is in it, from the top: "frames, foreground"
    rows: tuple[str, ...] = ()  # labels of rows of equal height, from the top
    columns: tuple[str, ...] = ()  # the same of columns, from the left


class ReleasedFile(NamedTuple):
    """One PyTorch file of a released model."""

    name: str  # best_model.pth
    modules: tuple[str, ...]  # of the model, at the top, whose variables are in it
    rules: Sequence[Rule | Dropped]


class StartingWeights(NamedTuple):
    """Published weights that a training starts from, in a PyTorch file of their own."""

    title: str  # what people call it
    source: str  # where people get the file
    # Of the file ("" is all of it) → places in the model: modules or single parameters.
    modules: Mapping[str, tuple[str, ...]]
    rules: Sequence[Rule | Dropped]
    section: str = ""  # of the settings that the weights decide, "model.dinov2"
    # state dict → those settings; InputError where it is of something else
    recognised: Callable[[Mapping[str, np.ndarray]], dict[str, Any]] | None = None
    advised: tuple[str, ...] = ()  # settings that go with the weights, but do not have to
    # state dict → what the rules take, where a setting decides the size of it; InputError
    prepared: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]] | None = None
    # state dict → what people have to know of it, for the log; "" is nothing
    remark: Callable[[Mapping[str, np.ndarray]], str] | None = None


class Method(Protocol):
    """The names of a method's module. config is always the whole configuration.

    Three more are optional: `VARIANTS`, see `variants_of`, and `check_tracklets` and
    `descriptor_variants`, see the functions of these names.
    """

    TITLE: str  # "DinoGRL (arXiv 2511.04281)"
    NEEDS_CAMERAS: bool  # whether training refuses tracklets of unknown camera

    def settings(self) -> dict[str, Any]:
        """The method's own sections (model, loss, optimizer, augment, pretrained), and what it
        changes in those that all methods share (`config.shared`), down to single settings.
        """

    def Model(self, config: ConfigDict, facts: Facts) -> nn.Module:
        """A Linen module of the whole configuration, called as model(clips, train=…)."""

    def descriptor(self, output: Any, config: ConfigDict) -> Float[Array, "v p d"]:
        """What is ranked, of the model's output; v tracklets: b pairs, visible before infrared."""

    def part_names(self, config: ConfigDict) -> list[str]:
        """What each of the p rows of a descriptor is, for people."""

    def groups(self, config: ConfigDict) -> Sequence[Group]:
        """Which parameters are trained, and how."""

    def training_loss(
        self,
        model: nn.Module,
        variables: Variables,
        clips: Clips,
        labels: Int[Array, " b"],
        key: Key[Array, ""],
        config: ConfigDict,
    ) -> tuple[Float[Array, ""], Made]:
        """The loss of a batch of pairs; key: of this step's random draws."""

    def before_epoch(self, model: nn.Module, config: ConfigDict, epoch: int) -> Sweep | None:
        """The pass before an epoch, counted from 0; None without one."""

    def starting_weights(self, config: ConfigDict) -> Mapping[str, StartingWeights]:
        """What the settings of the section `pretrained` can name, beside `model`."""

    def released_files(self, config: ConfigDict) -> Mapping[str, ReleasedFile]:
        """The files of a released model, by the names that scripts/convert.py has for them."""

    def released_facts(
        self, states: Mapping[str, Mapping[str, np.ndarray]], config: ConfigDict
    ) -> Facts:
        """What state dicts, by the names of `released_files`, say of the data; InputError."""

    def pictures(self, config: ConfigDict) -> Mapping[str, Picture]:
        """Pictures by name, which becomes a file's; {} without any."""


def no_sweep(model: nn.Module, config: ConfigDict, epoch: int) -> None:
    """The `before_epoch` of a method without memories."""


def variants_of(method: ModuleType) -> Mapping[str, Mapping[str, str]]:
    """The ablations of a method's paper: name → settings with the texts of their values.

    They are its `VARIANTS`; without any there is one, everything as configured.
    """
    return getattr(method, "VARIANTS", {}) or {"everything as configured": {}}


def descriptor_variants(method: ModuleType, config: ConfigDict) -> Mapping[str, Sequence[int]]:
    """Descriptors of a method's paper whose channels are among the configured one's: name → these.

    They are its `descriptor_variants(config)`; {} where it has none.
    """
    of_method = getattr(method, "descriptor_variants", None)
    return of_method(config) if of_method else {}


def check_tracklets(
    method: ModuleType, tracklets: Sequence[Tracklet], facts: Facts, config: ConfigDict
) -> None:
    """Raise InputError for tracklets that a trained model cannot describe, if its method says so.

    It does by `check_tracklets(tracklets, facts, config)`; facts: of what was trained with.
    """
    if check := getattr(method, "check_tracklets", None):
        check(tracklets, facts, config)
