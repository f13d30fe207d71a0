"""A real browser without a window, driven by its own protocol through two pipes: no other package.

Debian's package is `chromium`; a name or a path in the environment's CHROMIUM counts before it.
"""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

NAMES = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, filter(None, NAMES))), None)
ABSENT = "the page in a browser: there is no Chromium (Debian: apt-get install chromium)"
# the browser reads from 3 and writes to 4
PIPES = """
import fcntl, os, sys
high = [fcntl.fcntl(int(file), fcntl.F_DUPFD, 10) for file in sys.argv[1:3]]
os.dup2(high[0], 3)
os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
PATIENCE = 60.0  # seconds for what a page has to do
TAB = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
ENTER = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
SPACE = {"key": " ", "code": "Space", "windowsVirtualKeyCode": 32, "text": " "}


class Page:
    """A page in the browser."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._buffer = write, os.fdopen(read, "rb", 0), b""
        self._number, self._session, self.events = itertools.count(1), None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        made = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = made["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict:
        """The result of a method of the protocol."""
        number = next(self._number)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _message(self) -> dict:
        while b"\0" not in self._buffer:
            piece = self._read.read(1 << 20)
            assert piece, "the browser has ended"
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def run(self, code: str) -> Any:
        """The value of JavaScript's expression in the page."""
        made = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in made, made
        return made["result"].get("value")

    def wait(self, code: str) -> Any:
        """The value of an expression, once it is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.run(code)):
            assert time.monotonic() < end, (code, self.run("document.body.innerText"))
            time.sleep(0.05)
        return value

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def press(self, key: dict, times: int = 1) -> None:
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown", **key)
            self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Give files to an input, as a person who chooses them."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=list(map(str, files)))

    def shape(self, width: int, height: int, scheme: str = "light", scale: int = 1) -> None:
        """The size of the window, and whether the system is light or dark."""
        size = {"width": width, "height": height}
        self.call(
            "Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=scale, mobile=False
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def picture(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def problems(self) -> list[str]:
        """What the browser has complained of so far."""
        self.run("0")
        entries = [x["params"] for x in self.events if x["method"] == "Log.entryAdded"]
        texts = [x["entry"]["text"] for x in entries if x["entry"]["level"] == "error"]
        thrown = [x["params"] for x in self.events if x["method"] == "Runtime.exceptionThrown"]
        return texts + [str(x["exceptionDetails"]) for x in thrown]

    def addresses(self) -> list[str]:
        """What the browser has asked for so far."""
        sent = [x["params"] for x in self.events if x["method"] == "Network.requestWillBeSent"]
        return [x["request"]["url"] for x in sent]


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A page in a new browser, whose own files lie in a folder."""
    theirs_read, our_write = os.pipe()
    our_read, theirs_write = os.pipe()

    pipes = (theirs_read, theirs_write)
    command = [
        *(sys.executable, "-c", PIPES, *map(str, pipes)),
        *(PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--remote-debugging-pipe", f"--user-data-dir={folder}", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--lang=en-GB"),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=pipes,
        env={**os.environ, "HOME": str(folder), "TZ": "UTC"},
    )
    os.close(theirs_read)
    os.close(theirs_write)
    try:
        yield Page(our_write, our_read)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
