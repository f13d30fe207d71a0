"""A process that keeps compiled programs and runs one whenever it is told to.

It is given a list of programs as JSON in its argument, makes one after the other and says of each
what it is, and from then on runs what is named on its standard input. What it says are lines that
begin with MARK; whatever libraries print besides is left aside.
"""

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

MARK = "@"
Run = Callable[[int], dict[str, Any]]  # a number of calls in a row → seconds of one, …


def serve(made: Callable[[dict], tuple[Run, dict]]) -> None:
    """Make the programs of the argument; then "NAME CALLS" in, a line with its figures out.

    made: a program's description → what runs it, and what is known of it.
    """
    runs = {}
    for program in json.loads(sys.argv[1]):
        try:
            runs[program["name"]], known = made(program)
            say({"built": program["name"], **known})
        except Exception as error:  # one program that cannot be does not cost the others
            traceback.print_exc()
            say({"failed": program["name"], "why": f"{type(error).__name__}: {error}"[:500]})
    say({"ready": list(runs)})
    for line in sys.stdin:
        name, calls = line.rsplit(" ", 1)
        try:
            say({"ran": name, **runs[name](int(calls))})
        except Exception as error:
            traceback.print_exc()
            say({"failed": name, "why": f"{type(error).__name__}: {error}"[:500]})


def say(found: dict) -> None:
    print(MARK + json.dumps(found), flush=True)
