"""Captions of walkers: words that are true of shapes, in a small vocabulary."""

import numpy as np
import pytest

from dinogrl_jax.data.walkers import captions
from dinogrl_jax.data.walkers.captioned import CAPTIONS, CELL, SHOTS, captioned_people, measures
from dinogrl_jax.data.walkers.garments import MATERIALS
from dinogrl_jax.data.walkers.people import random_person

COLOURS = {"red", "green", "blue", "black", "white", "grey", "dark", "bright", "light"}

NOT_SEEN = (*captions.NEUTRAL, captions.START, captions.END)


def person(seed: int = 0):
    return random_person(np.random.default_rng(seed))


def test_the_vocabulary_ends_with_the_marks_and_has_no_colour():
    words = captions.VOCABULARY
    assert len(set(words)) == len(words) and words[-2:] == (captions.START, captions.END)
    assert not COLOURS & set(words)


def test_a_short_text_is_filled_with_ends():
    start, end = (captions.IDS[word] for word in (captions.START, captions.END))
    a, x, someone = (captions.IDS[word] for word in ("a", "x", "person"))
    assert captions.token_ids("a x person") == (start, a, x, someone, end)
    assert captions.token_ids("a person", 6) == (start, a, someone, end, end, end)


def test_an_unknown_word_is_an_error():
    with pytest.raises(KeyError, match="pink"):
        captions.token_ids("a pink person")


@pytest.mark.parametrize("seed", range(20))
def test_captions_are_short_sentences_of_what_is_true(seed):
    who, rng = person(seed), np.random.default_rng(seed)
    true = captions.true_words(who)
    for _ in range(20):
        text = captions.caption(who, rng)
        assert text.startswith("a ") and text.endswith(" .")
        assert set(text.split()) - set(NOT_SEEN) <= true
        assert len(captions.token_ids(text, captions.LENGTH)) == captions.LENGTH


def test_words_follow_the_shape():
    who = person()
    tall = who._replace(body=who.body._replace(height=1.95))
    short = who._replace(body=who.body._replace(height=1.5))
    assert "tall" in captions.traits(tall) and "short" in captions.traits(short)
    bald = who._replace(wardrobe=who.wardrobe._replace(hair="bald", hat="none"))
    assert "bald" in captions.traits(bald)
    hidden = who._replace(wardrobe=who.wardrobe._replace(hair="bald", hat="hood"))
    assert "bald" not in captions.traits(hidden)
    skirt = who.wardrobe._replace(legs="skirt", hem=1.7, flare=1.0, bag="shoulder", bag_size=1.0)
    assert {"long skirt", "satchel"} <= set(captions.things(skirt))


def test_every_word_of_the_vocabulary_is_used():
    rng = np.random.default_rng(0)
    texts = [captions.caption(person(seed), rng) for seed in range(400)]
    used = set(" ".join(texts).split())
    assert used == set(captions.VOCABULARY) - {captions.START, captions.END, "x"}


def test_people_of_each_seed_have_frames_and_captions():
    people = captioned_people((7, 8), 2, 32, 16, workers=0)
    assert people.frames.shape == (4, SHOTS, 32, 16, 3)
    assert people.captions.shape == (4, CAPTIONS, captions.LENGTH)
    assert len({x.tobytes() for x in people.frames}) == 4
    assert people.materials.shape == (4, SHOTS, 32 // CELL, 16 // CELL, len(MATERIALS))
    shares = people.materials.sum(-1, dtype=int)
    assert (shares.max((2, 3)) > 127).mean() > 0.9 and shares.max() <= 255 + len(MATERIALS) / 2
    said = [{*ids} - {captions.IDS[word] for word in NOT_SEEN} for ids in people.captions[0]]
    assert set.union(*said) <= {*people.words[0].nonzero()[0]}
    infrared = (people.frames == people.frames[..., :1]).all((2, 3, 4))
    assert (infrared.sum(1) == SHOTS // 2).all()


def test_measures_are_the_same_in_a_mirror():
    who = person()
    other = who._replace(wardrobe=who.wardrobe._replace(bag_side=-who.wardrobe.bag_side))
    np.testing.assert_array_equal(measures(who), measures(other))
    taller = who._replace(body=who.body._replace(height=who.body.height + 0.5))
    change = measures(taller) - measures(who)
    assert change[0] == pytest.approx(0.5) and not change[1:].any()
