"""Data sets by name."""

from pathlib import Path

from ml_collections import ConfigDict

from dinogrl_jax.data import synthetic, vcm
from dinogrl_jax.data.tracklets import Tracklet
from dinogrl_jax.errors import InputError

Sets = tuple[list[Tracklet], list[Tracklet]]  # training and test


def read(config: ConfigDict) -> Sets:
    """The training and the test tracklets of a configuration's section `data`.

    Raises InputError for an unknown data set, and for what is missing or wrong on disk.
    """
    if config.dataset not in DATASETS:
        raise InputError(
            f"data.dataset = {config.dataset!r}: there is {', '.join(sorted(DATASETS))}"
        )
    if not config.root:
        raise InputError("data.root is empty: say where the data set lies, --config.data.root=DIR")
    return DATASETS[config.dataset](config)


def hitsz_vcm(config: ConfigDict) -> Sets:
    return vcm.read(
        config.root,
        minimum_frames=config.minimum_frames,
        discard_train=config.discard_train,
        discard_test=config.discard_test,
    )


def synthetic_walkers(config: ConfigDict) -> Sets:
    """The data set at the root, generated first if nothing is there."""
    settings = config.synthetic.to_dict()
    if not Path(config.root).exists():
        print(f"generating walking people in {config.root}")
        synthetic.generate(config.root, **settings)
    synthetic.check(config.root, settings)
    return hitsz_vcm(config)


DATASETS = {"vcm": hitsz_vcm, "synthetic": synthetic_walkers}
