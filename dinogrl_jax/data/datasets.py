"""Data sets by name, raw or prepared."""

from pathlib import Path

from ml_collections import ConfigDict

from dinogrl_jax.data.problems import Problem
from dinogrl_jax.data.readers import bupt, manifest, prepared, vcm
from dinogrl_jax.data.tracklets import Tracklet, long_enough
from dinogrl_jax.data.walkers import synthetic
from dinogrl_jax.interface.errors import InputError

Sets = tuple[list[Tracklet], list[Tracklet]]  # training and test
Problems = list[Problem] | None  # None: raise


def read(config: ConfigDict, problems: Problems = None) -> Sets:
    """The training and the test tracklets of a configuration's section `data`.

    The root may be what scripts/prepare.py made of the data set.

    problems: collects what is wrong, which is then left out instead of refused.

    Raises InputError for an unknown data set, and for what is missing or wrong on disk.
    """
    if config.dataset not in DATASETS:
        raise InputError(
            f"data.dataset = {config.dataset!r}: there is {', '.join(sorted(DATASETS))}"
        )
    if not config.root:
        raise InputError("data.root is empty: say where the data set lies, --config.data.root=DIR")
    if (config.auxiliary or config.fake_infrared) and config.batch_rule == "camera-pairs":
        raise InputError(
            "data.batch_rule = 'camera-pairs' never draws what data.auxiliary and "
            "data.fake_infrared add: set it to 'identity', or leave them out"
        )
    if prepared.is_prepared(config.root):
        return prepared.read_splits(config, problems)
    return DATASETS[config.dataset](config, problems)


def hitsz_vcm(config: ConfigDict, problems: Problems) -> Sets:
    return vcm.read_splits(
        config.root,
        minimum_frames=config.minimum_frames,
        discard_train=config.discard_train,
        discard_test=config.discard_test,
        problems=problems,
    )


def bupt_campus(config: ConfigDict, problems: Problems) -> Sets:
    sets = bupt.read_splits(
        config.root,
        auxiliary=config.auxiliary,
        fake_infrared=config.fake_infrared,
        problems=problems,
    )
    return filtered(sets, config, problems)


def listed_in_manifest(config: ConfigDict, problems: Problems) -> Sets:
    return filtered(manifest.read_splits(config.root, problems=problems), config, problems)


def synthetic_walkers(config: ConfigDict, problems: Problems) -> Sets:
    """The data set at the root, generated first if nothing is there."""
    settings = config.synthetic.to_dict()
    if not Path(config.root).exists():
        print(f"generating walking people in {config.root}")
        synthetic.generate(config.root, **settings)
    if problems is None:
        synthetic.check_generated(config.root, settings)
    return hitsz_vcm(config, problems)


def filtered(sets: Sets, config: ConfigDict, problems: Problems) -> Sets:
    if config.discard_train or config.discard_test:
        raise InputError(
            "data.discard_train and data.discard_test are for HITSZ-VCM: leave them empty"
        )
    left_out: list[Problem] = []
    train, test = (long_enough(split, config.minimum_frames, left_out) for split in sets)
    if problems is not None:
        problems += left_out
    return train, test


DATASETS = {
    "vcm": hitsz_vcm,
    "bupt": bupt_campus,
    "manifest": listed_in_manifest,
    "synthetic": synthetic_walkers,
}
