"""Data sets by name, raw or prepared."""

from pathlib import Path

from ml_collections import ConfigDict

from dinogrl_jax.data.problems import Notes, Problem, are_refused, raise_if_any
from dinogrl_jax.data.readers import bupt, manifest, prepared, vcm
from dinogrl_jax.data.tracklets import Tracklet, long_enough
from dinogrl_jax.data.walkers import synthetic
from dinogrl_jax.interface.errors import InputError, lookup

Sets = tuple[list[Tracklet], list[Tracklet]]  # training and test
Problems = list[Problem] | None  # None and Notes: raise


def read(config: ConfigDict, problems: Problems = None) -> Sets:
    """The training and the test tracklets of a configuration's section `data`.

    The root may be what scripts/prepare.py made of the data set.

    problems: collects what is wrong, which is then left out instead of refused. `Notes` collects
        what the filters leave out, and fatal problems raise as without.

    Raises InputError for an unknown data set, and for what is missing or wrong on disk.
    """
    reader = lookup(DATASETS, config.dataset, "data.dataset")
    if not config.root:
        raise InputError("data.root is empty: say where the data set lies, --config.data.root=DIR")
    if (config.auxiliary or config.fake_infrared) and config.batch_rule == "camera-pairs":
        raise InputError(
            "data.batch_rule = 'camera-pairs' never draws what data.auxiliary and "
            "data.fake_infrared add: set it to 'identity', or leave them out"
        )
    reader = prepared.read_splits if prepared.is_prepared(config.root) else reader
    sets = reader(config, problems)
    if isinstance(problems, Notes):  # which a reader of a user takes for any list
        raise_if_any([problem for problem in problems if problem.fatal], config.root)
    return sets


def hitsz_vcm(config: ConfigDict, problems: Problems) -> Sets:
    names = ("minimum_frames", "discard_train", "discard_test")
    settings = {name: config[name] for name in names}
    return vcm.read_splits(config.root, **settings, problems=problems)


def bupt_campus(config: ConfigDict, problems: Problems) -> Sets:
    settings = {name: config[name] for name in prepared.SETTINGS}
    sets = bupt.read_splits(config.root, **settings, problems=problems)
    return long_enough_sets(sets, config, problems)


def listed_in_manifest(config: ConfigDict, problems: Problems) -> Sets:
    sets = manifest.read_splits(config.root, problems=problems)
    return long_enough_sets(sets, config, problems)


def synthetic_walkers(config: ConfigDict, problems: Problems) -> Sets:
    """The data set at the root, generated first if nothing is there."""
    settings = config.synthetic.to_dict()
    if not Path(config.root).exists():
        print(f"generating walking people in {config.root}")
        try:
            synthetic.generate(config.root, **settings)
        except InputError:
            if not Path(config.root).exists():  # else another experiment has made it meanwhile
                raise
    if are_refused(problems):
        synthetic.check_generated(config.root, settings)
    return hitsz_vcm(config, problems)


def long_enough_sets(sets: Sets, config: ConfigDict, problems: Problems) -> Sets:
    if config.discard_train or config.discard_test:
        raise InputError(
            "data.discard_train and data.discard_test are for HITSZ-VCM: leave them empty"
        )
    left_out = [] if problems is None else problems
    train, test = (long_enough(split, config.minimum_frames, left_out) for split in sets)
    return train, test


DATASETS = {
    "bupt": bupt_campus,
    "manifest": listed_in_manifest,
    "synthetic": synthetic_walkers,
    "vcm": hitsz_vcm,
}
