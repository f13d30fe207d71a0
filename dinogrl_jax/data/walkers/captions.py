"""What a walker looks like, in words: captions over a small vocabulary, never of colour.

Words are true of the shape that a camera sees, in both modalities, and stand for what differs
clearly: who is neither tall nor short has no word of height.
"""

import numpy as np

from dinogrl_jax.data.walkers.people import Body, Gait, Person, Wardrobe

NEUTRAL = ("x", "a", "person", "with", "and", "seen", "both", "by", "day", "night", ".")
TRAITS = (
    *("tall", "short", "slim", "broad", "long-legged", "short-legged"),
    *("bald", "short-haired", "bobbed", "long-haired", "bunned", "pony-tailed", "curly"),
    *("striding", "shuffling", "stooping", "upright", "bowed", "swinging", "stiff", "crooked"),
    *("sleeveless", "short-sleeved", "long-sleeved"),
    *("skirted", "coated", "booted", "laden", "hatted", "hooded"),
)
THINGS = (
    *("long", "wide", "narrow", "flared", "big", "small"),
    *("trousers", "shorts", "skirt", "tights", "coat", "boots"),
    *("backpack", "satchel", "handbag", "cap", "beanie", "hood", "sunhat"),
)
START, END = "<start>", "<end>"  # of a text, the last two words as in CLIP's vocabulary
VOCABULARY = (*NEUTRAL, *TRAITS, *THINGS, START, END)
IDS = {word: number for number, word in enumerate(VOCABULARY)}
LENGTH = 16  # tokens of a caption
ANYWHERE = "seen both by day and by night ."
HAIR = {
    "bald": "bald",
    "short": "short-haired",
    "bob": "bobbed",
    "long": "long-haired",
    "bun": "bunned",
    "tail": "pony-tailed",
    "afro": "curly",
}
BAGS = {"backpack": "backpack", "shoulder": "satchel", "hand": "handbag"}
HATS = {"cap": "cap", "beanie": "beanie", "hood": "hood", "brim": "sunhat"}


def token_ids(text: str, length: int = 0) -> tuple[int, ...]:
    """The ids of a text's words, which blanks divide, between the marks of its start and end.

    length: of a text with fewer tokens, whose end is marked more than once. Raises KeyError for a
    word that is not in the vocabulary.
    """
    ids = [IDS[word] for word in (START, *text.split(), END)]
    return (*ids, *[ids[-1]] * (length - len(ids)))


def caption(who: Person, rng: np.random.Generator) -> str:
    """A sentence of four traits, where there are so many, and of clothes and luggage.

    "a tall swinging long-sleeved bald person with long coat and boots and cap ." It names as many
    pieces as LENGTH leaves room for; one in four sentences says ANYWHERE instead.
    """
    known, pieces = traits(who), things(who.wardrobe)
    words = ["a", *(known[i] for i in rng.permutation(len(known))[:4]), "person"]
    if rng.random() < 0.25:
        return " ".join([*words, ANYWHERE])
    for i in rng.permutation(len(pieces)):
        piece = ["and" if "with" in words else "with", *pieces[i].split()]
        if len(words) + len(piece) + 3 <= LENGTH:  # a full stop, and the marks
            words += piece
    return " ".join([*words, "."])


def true_words(who: Person) -> set[str]:
    """All words that a caption of a person may have, beside NEUTRAL."""
    return {*traits(who), *" ".join(things(who.wardrobe)).split()}


def traits(who: Person) -> list[str]:
    """All words of TRAITS that are true of a person."""
    hidden = who.wardrobe.hat == "hood"
    hair = [] if hidden else [HAIR[who.wardrobe.hair]]
    return body_traits(who.body) + hair + gait_traits(who.gait) + clothing_traits(who.wardrobe)


def extremes(value: float, least: float, low: str, most: float, high: str) -> list[str]:
    """The word for a value below `least` or above `most`; none for what lies between."""
    return [low] if value < least else [high] if value > most else []


def body_traits(body: Body) -> list[str]:
    girth = (body.chest[0] + body.waist[0] + body.hips[0]) / body.height
    legs = (body.thigh + body.shank) / body.height
    return [
        *extremes(body.height, 1.65, "short", 1.83, "tall"),
        *extremes(girth, 0.25, "slim", 0.29, "broad"),
        *extremes(legs, 0.49, "short-legged", 0.52, "long-legged"),
    ]


def gait_traits(gait: Gait) -> list[str]:
    return [
        *extremes(gait.hip, 0.77, "shuffling", 0.93, "striding"),
        *extremes(gait.lean, 0.5, "upright", 6.5, "stooping"),
        *(["bowed"] if gait.head_lean > 15 else []),
        *extremes(gait.arm_swing, 13.0, "stiff", 26.0, "swinging"),
        *(["crooked"] if gait.elbow > 30 else []),
    ]


def clothing_traits(clothes: Wardrobe) -> list[str]:
    hat = {"none": [], "hood": ["hooded"]}.get(clothes.hat, ["hatted"])
    worn = {
        "skirted": clothes.legs == "skirt",
        "coated": clothes.coat,
        "booted": clothes.boots,
        "laden": clothes.bag != "none",
    }
    return [
        [*extremes(clothes.sleeve, 0.1, "sleeveless", 1.5, "long-sleeved"), "short-sleeved"][0],
        *hat,
        *(word for word, is_worn in worn.items() if is_worn),
    ]


def things(clothes: Wardrobe) -> list[str]:
    """What a person wears and carries, with words of its shape."""
    pieces = [leg_wear(clothes)]
    if clothes.coat:
        pieces.append("long coat" if clothes.coat > 0.9 else "coat")
    if clothes.boots:
        pieces.append("boots")
    if clothes.legs != "trousers" and clothes.tights:
        pieces.append("tights")
    if clothes.bag != "none":
        size = extremes(clothes.bag_size, 0.95, "small", 1.15, "big")
        pieces.append(" ".join([*size, BAGS[clothes.bag]]))
    if clothes.hat != "none":
        pieces.append(HATS[clothes.hat])
    return pieces


def leg_wear(clothes: Wardrobe) -> str:
    if clothes.legs == "trousers":
        shape = extremes(clothes.legs_width, 1.18, "narrow", 1.37, "wide")
    else:
        middle = 0.8 if clothes.legs == "shorts" else 1.1
        shape = ["long" if clothes.hem > middle else "short"]
    if clothes.legs != "shorts" and clothes.flare > 1.5:
        shape.append("flared")
    return " ".join([*shape, clothes.legs])
