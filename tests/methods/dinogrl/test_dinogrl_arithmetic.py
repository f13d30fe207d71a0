"""How much arithmetic DinoGRL does, as published."""

import arithmetic

from dinogrl_jax.methods import default


def test_a_visit_of_pbmge_by_hand():
    """Of 4 values: an affinity and two products of 4·4·4, five lifts of 4·4 multiply-adds."""
    assert arithmetic.pbmge(4).forward == 2 * (3 * 64 + 5 * 16)


def test_the_paper_needs_50_and_90_gigaflop_a_frame():
    stages = arithmetic.METHODS["dinogrl"](default("dinogrl"), 500)
    rounded = {name: round(work.forward / 6e9, 1) for name, work in stages.items()}
    assert rounded == {
        "dinov2": 26.9,
        "branches": 5.0,
        "pre_blocks": 0.7,
        "gait_resnet": 8.0,
        "stems": 0.2,
        "appearance_resnet": 8.0,
        "parts": 0.0,
        "pbmge": 1.0,
        "classifiers": 0.0,
    }
    total = arithmetic.total(stages)
    assert (round(total.forward / 6e9, 1), round(total.training / 6e9, 1)) == (49.6, 90.1)


def test_an_ablation_has_less():
    config = default("dinogrl")
    config.model.streams, config.model.pbmge = ("appearance",), False
    stages = arithmetic.METHODS["dinogrl"](config, 500)
    assert list(stages) == ["stems", "appearance_resnet", "parts", "classifiers"]
