"""Programs of several processes, run in turns, and what they took, line by line in a file.

A process has its own libraries and its own memory on the card, so that peaks are its own and an
abort costs nothing but its programs. All of a group compile at the same time; nothing compiles
while something is measured.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gpu.worker import MARK

ENOUGH = 0.6  # of a group's time may go by while it compiles


class Process(NamedTuple):
    """A module that serves programs, and their descriptions."""

    module: str
    programs: Sequence[dict]


class Group(NamedTuple):
    """What is compiled together and measured in turns.

    checks: Python's arguments for what has to end before anything is measured. seconds: what the
    group is thought to need.
    """

    name: str
    processes: Sequence[Process]
    seconds: float
    checks: Sequence[Sequence[str]] = ()


class Results:
    """A file of JSON lines, each of which is on the disk before the next is measured."""

    def __init__(self, path: Path) -> None:
        self.file, self.began = path.open("a"), time.monotonic()

    def add(self, **found) -> None:
        line = json.dumps({"at": round(time.monotonic() - self.began, 1), **found})
        print(line, flush=True)
        self.file.write(line + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())


class Worker:
    """A running process; what it says comes as dictionaries, None at its end."""

    def __init__(self, process: Process) -> None:
        self.process = process
        command = [sys.executable, "-m", process.module, json.dumps(list(process.programs))]
        pipe = subprocess.PIPE
        self.running = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.said: queue.Queue = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.running.stdout:
            if line.startswith(MARK):
                self.said.put(json.loads(line[len(MARK) :]))
        self.said.put(None)

    def hear(self, until: float) -> dict | None:
        """The next that it says; None at its end. Raises queue.Empty at that time."""
        return self.said.get(timeout=max(until - time.monotonic(), 0.01))

    def run(self, name: str, calls: int, until: float) -> dict | None:
        self.running.stdin.write(f"{name} {calls}\n")
        self.running.stdin.flush()
        return self.hear(until)

    def end(self) -> None:
        self.running.kill()
        self.running.wait()


def measure(
    groups: Sequence[Group], results: Results, deadline: float, rounds: int, calls: int
) -> None:
    """All groups for which there is time, one after the other."""
    for group in groups:
        left = deadline - time.monotonic()
        if left < group.seconds:
            why = f"{left:.0f} s are left, it needs {group.seconds:.0f}"
            results.add(group=group.name, skipped=group.name, why=why)
            continue
        checks = [subprocess.Popen([sys.executable, *x], **TOLD) for x in group.checks]
        workers = [Worker(process) for process in group.processes]
        try:
            until = time.monotonic() + ENOUGH * left
            ready = [x for worker in workers for x in built(group.name, worker, results, until)]
            for check in checks:
                results.add(group=group.name, **ended(check, until))
            in_turns(group.name, ready, results, deadline, rounds, calls)
        finally:
            for worker in workers:
                worker.end()
            for check in checks:
                check.kill()


TOLD = {"stdout": subprocess.PIPE, "text": True}


def ended(check: subprocess.Popen, until: float) -> dict:
    """The lines of a check, and whether it is passed; one that goes on then is ended and fails."""
    try:
        told, _ = check.communicate(timeout=max(until - time.monotonic(), 0.01))
    except subprocess.TimeoutExpired:
        check.kill()
        return {"check": check.args[1:], "passed": False, "why": "it did not end in time"}
    return {"check": check.args[1:], "passed": not check.returncode, "told": told.splitlines()}


def built(group: str, worker: Worker, results: Results, until: float) -> list[tuple[Worker, str]]:
    """A worker's programs that are ready by then."""
    programs = {program["name"]: program for program in worker.process.programs}
    left, why = set(programs), "its process ended"
    try:
        while (said := worker.hear(until)) and "ready" not in said:
            name = said.get("built") or said["failed"]
            results.add(group=group, **said, program=programs[name])
            left.remove(name)
    except queue.Empty:
        said, why = None, "it was not compiled in time"
    for name in sorted(left):
        results.add(group=group, skipped=name, why=why)
    return [(worker, name) for name in (said or {"ready": []})["ready"]]


def in_turns(
    group: str,
    programs: Sequence[tuple[Worker, str]],
    results: Results,
    deadline: float,
    rounds: int,
    calls: int,
) -> None:
    """Each program once a round; one that fails is left out of the rounds that follow."""
    programs = list(programs)
    for number in range(rounds):
        for worker, name in tuple(programs):
            try:
                said = worker.run(name, calls, deadline)
            except queue.Empty:
                results.add(group=group, skipped=name, why=f"time was up in round {number}")
                return
            except OSError:
                said = None
            if said is None or "failed" in said:
                programs.remove((worker, name))
                said = said or {"failed": name, "why": "its process ended"}
            results.add(group=group, round=number, **said)
