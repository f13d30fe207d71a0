"""Generate a data set of walking people: dinogrl_jax generate --out DIR"""

import argparse

from dinogrl_jax.config import DATA
from dinogrl_jax.data.walkers.synthetic import contact_sheet, generate
from dinogrl_jax.interface.arguments import Parser, path, whole_number
from dinogrl_jax.interface.errors import run


def flags() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--out", type=path, required=True, help="folder to make; it must not exist")
    for name, one in DATA["synthetic"].items():
        option, text = "--" + name.replace("_", "-"), f"{one.meaning}; default {one.default}"
        parser.add_argument(option, type=whole_number(0), default=one.default, help=text)
    parser.add_argument("--silhouettes", action="store_true", help="write PNG masks as well")
    parser.add_argument("--workers", type=whole_number(0), default=2, help="processes, default 2")
    parser.add_argument("--picture", type=path, help="file for a contact sheet of the data set")
    return parser.parse_args()


def main() -> None:
    settings = vars(flags())
    out, picture = settings.pop("out"), settings.pop("picture")
    generate(out, **settings)
    people = "{train_identities} people to train on, {test_identities} to test on"
    print(f"{out}: {people.format(**settings)}, in HITSZ-VCM's layout (data.dataset=vcm)")
    if picture:
        size = {key: settings[key] for key in ("seed", "height", "width")}
        contact_sheet(**size).save(picture)
        print(f"{picture}: some of them")


if __name__ == "__main__":
    run(main)
