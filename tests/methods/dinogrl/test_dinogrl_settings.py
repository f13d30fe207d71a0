"""DinoGRL's own settings: ranges, and sizes that have to fit each other."""

import pytest
import small

from dinogrl_jax.interface.checks import checked_config
from dinogrl_jax.interface.command_line import changed_config
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods import default
from dinogrl_jax.methods.dinogrl.settings import map_rows
from dinogrl_jax.methods.variables import variable_shapes

CONFIG = default("dinogrl")
REFUSED = [
    ({"model.dinov2.heads": "7"}, "heads = 7: it has to divide model.dinov2.embedding, 384"),
    ({"model.dinov2.heads": "0"}, "heads = 0"),
    ({"model.dinov2.embedding": "100"}, "it has to divide model.dinov2.embedding, 100"),
    ({"model.dinov2.height": "450"}, "it has to be a multiple of model.dinov2.patch, 14"),
    ({"model.dinov2.width": "7"}, "it has to be a multiple of model.dinov2.patch, 14"),
    ({"model.dinov2.patch": "0"}, "patch = 0: it has to be 1 to 8192"),
    ({"model.dinov2.grid": "0"}, "grid = 0"),
    ({"model.dinov2.depth": "0"}, "depth = 0"),
    (
        {"model.dinov2.depth": "8"},
        "taps = (2, 5, 8, 11): it has to be less than model.dinov2.depth",
    ),
    ({"model.dinov2.taps": "()"}, "it has to have at least one value"),
    ({"model.dinov2.taps": "(-1,)"}, "it has to be 0 or more, each value of it"),
    ({"model.dinov2.mlp": "relu"}, "it has to be gelu or swiglu"),
    ({"model.dinov2.mlp_ratio": "0"}, "mlp_ratio = 0"),
    ({"model.dinov2.offset": "inf"}, "it has to be a finite number"),
    ({"model.parts": "(1, 3)"}, "divide the rows of the feature map, 16 of gait, 16 of appearance"),
    ({"model.parts": "(1, 0)"}, "parts = (1, 0)"),
    ({"model.parts": "()"}, "it has to have at least one value"),
    ({"model.parts": "(2, 4)"}, "it has to begin with 1 and go on"),
    ({"model.parts": "(1,)"}, "it has to begin with 1 and go on"),
    ({"data.height": "100"}, "16 of gait, 7 of appearance"),
    ({"model.resnet.stages": "(3, 4, 6, 3, 3)"}, "8 of gait, 8 of appearance"),
    ({"model.resnet.stages": "()"}, "it has to have at least one value"),
    ({"model.resnet.width": "0"}, "width = 0"),
    ({"model.streams": "('appearance',)"}, "pbmge = True: it has to be False without both"),
    ({"model.streams": "('face',)"}, "it has to be gait or appearance"),
    ({"model.streams": "()"}, "it has to have at least one value"),
    ({"model.sasgl.mask_dropout": "2"}, "mask_dropout = 2.0: it has to be 0 to 1"),
    ({"model.sasgl.zeroed_tracklets": "-0.1"}, "zeroed_tracklets = -0.1"),
    ({"model.sasgl.hidden": "0"}, "hidden = 0"),
    ({"augment.pad": "-1"}, "augment.pad = -1"),
    ({"augment.erase": "1.5"}, "augment.erase = 1.5"),
    ({"loss.identity_scale": "nan"}, "it has to be a finite number"),
    ({"loss.label_smoothing": "2"}, "label_smoothing = 2.0"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED)
def test_odd_sizes_are_named_with_what_they_have_to_fit(given, said):
    with pytest.raises(InputError) as caught:
        checked_config(changed_config(CONFIG.copy_and_resolve_references(), given))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"model.streams": "appearance", "model.pbmge": "no", "model.parts": "2,4"},
        {"model.streams": "gait", "model.pbmge": "no", "data.height": "100"},
        {"data.height": "384", "model.parts": "(1, 2, 8)"},
    ],
)
def test_what_fits_is_taken(given):
    checked_config(changed_config(CONFIG.copy_and_resolve_references(), given))


@pytest.mark.parametrize("stages", [(1,), (1, 1, 1)])
def test_rows_are_those_of_the_feature_maps(stages):
    """The largest number of bands that fits is taken by the model; twice as many are not."""
    config = small.get_config()
    config.model.resnet.stages = stages
    rows = map_rows(config)
    config.model.parts = (1, rows["gait"])
    assert rows["gait"] == rows["appearance"]
    variable_shapes(small.METHOD.Model(config, small.FACTS), config)
    config.model.parts = (1, 2 * rows["gait"])
    with pytest.raises((TypeError, ZeroDivisionError)):
        variable_shapes(small.METHOD.Model(config, small.FACTS), config)
