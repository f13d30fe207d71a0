"""What stands before every request: who may ask, how much may come, what a browser may do with it.

A page of somebody else in the user's browser is the danger of a server on loopback: it can send
requests there, and with a name of its own that leads to 127.0.0.1 also read the answers. So the
name in `Host` has to be the server's, and a request that says it comes from elsewhere is refused.
Where others reach the server, a token is asked for, which no browser sends by itself.
"""

import asyncio
import hmac
import re
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "[::1]", "localhost")
OPEN = re.compile(r"/|/docs|/openapi\.json|/health|/static/[\w.]+")  # what tells nothing of people
NAME = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d+)?")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Access(NamedTuple):
    """Who may ask, and how much may come."""

    hosts: Sequence[str] | None = LOOPBACK  # names of the server; None: any, a token guards
    token: str = ""  # that has to be given; empty: none
    upload: int = 64 << 20  # bytes of a request
    seconds: float = 60.0  # in which it has to arrive
    waiting: int = 32  # uploads at a time


class Guard:
    """An ASGI application before another one."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access, self.uploads = app, access, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = _with_headers(send)
        refusal = self._refusal(scope, Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        uploads = scope["method"] not in ("GET", "HEAD")
        self.uploads += uploads
        try:
            await self.app(scope, self._limited(receive), send)
        finally:
            self.uploads -= uploads

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        """The answer to a request that must not go on."""
        access, asked = self.access, headers.get("host", "")
        name = NAME.fullmatch(asked.lower())
        if access.hosts is not None and (name is None or name[1] not in access.hosts):
            text = f"the server is not known as {asked[:80]!r}: start it with --known-as NAME"
            return _answer(421, text)
        if not _is_from_here(scope, headers, asked):
            return _answer(403, "the request comes from a page of another site")
        if access.token and not OPEN.fullmatch(scope["path"]):
            given = headers.get("authorization", "").encode()
            if not hmac.compare_digest(given, f"Bearer {access.token}".encode()):
                text = "the server wants its token, in a header: Authorization: Bearer TOKEN"
                return _answer(401, text, {"WWW-Authenticate": "Bearer"})
        if scope["method"] in ("GET", "HEAD"):
            return None
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > access.upload:
            return _answer(413, self._too_large())
        if self.uploads >= access.waiting:
            text = f"{self.uploads} requests wait already: try again soon"
            return _answer(503, text, {"Retry-After": "2"})
        return None

    def _too_large(self) -> str:
        return f"the upload has more than {self.access.upload / 2**20:g} MiB: give a shorter clip"

    def _limited(self, receive: Receive) -> Receive:
        """`receive` of a body that is neither too large nor too slow."""
        end, size, whole = time.monotonic() + self.access.seconds, 0, False

        async def limited() -> Message:
            nonlocal size, whole
            if whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), end - time.monotonic())
            except TimeoutError:
                text = f"the upload takes longer than {self.access.seconds:g} s"
                raise HTTPException(408, text) from None
            size += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if size > self.access.upload:
                raise HTTPException(413, self._too_large())
            return message

        return limited


def _is_from_here(scope: Scope, headers: Headers, host: str) -> bool:
    """Whether a browser says that a page of this server asks, or nothing says that one asks."""
    site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
    opened = scope["method"] == "GET" and mode == "navigate"  # by a link or by hand
    if site not in (None, "same-origin", "none") and not opened:
        return False
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == host.lower()


def _answer(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": text}, status, headers)


def _with_headers(send: Send) -> Callable:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
