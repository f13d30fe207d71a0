"""Serve a gallery: a page and an API that find people, and keep what users say of the answers:

    dinogrl_jax serve --index FOLDER --checkpoint DIR
    dinogrl_jax serve --index FOLDER --export-labels FILE

DIR is a run, a model that dinogrl_jax convert made, or the folder of a step of either; FOLDER is a
gallery that dinogrl_jax search has filled with the same model. The page is at the printed address:
a clip is chosen or dropped, the nearest tracklets are shown, and "same person" or "other person" is
kept in the gallery. The second command writes who was called the same person to a manifest, which
training reads.

Only this machine reaches the server, unless --host says otherwise; then it wants a token, of
--token-file or the environment's DINOGRL_JAX_TOKEN. The connection is not encrypted: beyond a
network that you trust, put a proxy with TLS before it.
"""

import argparse
import ipaddress
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from dinogrl_jax.devices import memory, sharding
from dinogrl_jax.interface.arguments import Parser, number, path, whole_number
from dinogrl_jax.interface.command_line import WHICH
from dinogrl_jax.interface.errors import InputError, run
from dinogrl_jax.interface.files import read_text
from dinogrl_jax.interface.text import UNPRINTABLE
from dinogrl_jax.retrieval.store.labelled import write_labelled
from dinogrl_jax.training.api.model import load

TOKEN = "DINOGRL_JAX_TOKEN"
SHORTEST_TOKEN = 16  # letters
BATCH = {"cpu": 1}  # clips at once, by platform: a processor gains nothing from more
OTHER_BATCH = 8


def flags() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--index", required=True, type=path, metavar="FOLDER", help="the gallery")
    add("--checkpoint", type=path, help="run, converted model, or step of one")
    add("--which", default=WHICH, help=f"best, last or a step; default {WHICH}")
    add("--batch", type=whole_number(1), help="clips embedded at once; default 1 on a CPU, else 8")
    add("--host", default="127.0.0.1", help="address to listen at; default 127.0.0.1")
    add("--port", type=whole_number(0), default=8000, help="default 8000; 0: a free one")
    add("--token-file", type=path, help="file with the token that requests have to give")
    add("--known-as", action="append", default=[], metavar="NAME", help="name of a proxy before it")
    add("--upload", type=number(0.001), default=64, metavar="MIB", help="most of a request; 64")
    add("--frames", type=whole_number(1), default=300, help="most of a clip; default 300")
    add("--pixels", type=number(0.001), default=64, help="millions, most of a clip; default 64")
    add("--seconds", type=number(0.1), default=10, help="to decode a clip; default 10")
    add("--waiting", type=whole_number(1), default=32, help="requests at a time; default 32")
    add("--export-labels", type=path, metavar="FILE", help="write the manifest, and end")
    return parser.parse_args()


def web() -> tuple[ModuleType, ...]:
    """uvicorn and what the server is made of; InputError where one is not installed."""
    try:
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn

        from dinogrl_jax.retrieval.server import app, decoders, guard, service
    except ImportError as error:
        raise InputError(
            f"the server needs {error.name}, which is not installed: "
            "pip install 'dinogrl_jax[serve]'"
        ) from error
    return uvicorn, app, decoders, guard, service


def token_of(options: argparse.Namespace, environment: Mapping[str, str]) -> str:
    """The token that requests have to give; empty: none. InputError for one that is no secret."""
    where, token = TOKEN, environment.get(TOKEN, "")
    if options.token_file:
        where, token = options.token_file, read_text(options.token_file, 4096)
    token = token.strip()
    asked = bool(options.token_file) or TOKEN in environment
    wrong = UNPRINTABLE.search(token) or not token.isascii() or " " in token
    if asked and (len(token) < SHORTEST_TOKEN or wrong):
        raise InputError(
            f"{where}: a token has {SHORTEST_TOKEN} letters or more of ASCII and no spaces: "
            "openssl rand -hex 32 makes one"
        )
    if not token and not is_loopback(options.host):
        raise InputError(
            f"command line: --host {options.host} lets others in: give a token, --token-file FILE "
            f"or {TOKEN}"
        )
    return token


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; InputError where the address is in use, or is none of this machine."""
    if port >= 1 << 16:
        raise InputError(f"command line: port {port} is none: choose one below {1 << 16}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"command line: {host}, port {port}: {reason}: choose another") from error
    return listening


def serve(options: argparse.Namespace) -> None:
    uvicorn, app, decoders, guard, service = web()
    token, loopback = token_of(options, os.environ), is_loopback(options.host)
    hosts = (*guard.LOOPBACK, options.host, *map(str.lower, options.known_as)) if loopback else None
    upload = int(options.upload * 2**20)
    access = guard.Access(hosts, token, upload, waiting=options.waiting)
    limits = decoders.Limits(options.frames, int(options.pixels * 1e6), options.seconds)
    if not Path(options.index).is_dir():
        raise InputError(
            f"{options.index}: there is no such gallery: dinogrl_jax search --index "
            f"{options.index} --tracklets … makes it"
        )
    with listening_socket(options.host, options.port) as listening:
        batch = options.batch or BATCH.get(sharding.platform(sharding.device_mesh()), OTHER_BATCH)
        model = load(options.checkpoint, options.which, batch=batch)
        served = service.Service(model, Path(options.index), limits)
        print("compiling", flush=True)
        served.warm_up()
        host, port = listening.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        print(f"{options.index}: http://{host}:{port}/ finds people; Ctrl-C ends", flush=True)
        settings = uvicorn.Config(
            app.create_app(served, access),
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=10,
        )
        uvicorn.Server(settings).run(sockets=[listening])


def export(options: argparse.Namespace) -> None:
    made = write_labelled(Path(options.index), Path(options.export_labels))
    for line in made.left_out:
        print(f"left out: {line}")
    print(f"{options.export_labels}: {made.tracklets} tracklets of {made.people} people")


def main() -> None:
    options = flags()
    if options.export_labels:
        export(options)
        return
    if options.checkpoint is None:
        raise InputError("command line: the server needs a model, --checkpoint DIR")
    memory.keep_freed()
    serve(options)


if __name__ == "__main__":
    run(main)
