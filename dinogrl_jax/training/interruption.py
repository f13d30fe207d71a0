"""Stopping a long run without losing its work."""

import contextlib
import signal

STOPPED = 75  # exit status of a run that saved and wants to be continued (EX_TEMPFAIL)


class Stopped(Exception):
    """The run was asked to stop, and its state is whole: it can be saved."""


class Interruption:
    """While entered, Ctrl-C and signals only set `requested`; a second Ctrl-C stops at once.

    USR1 and USR2 are what people have SLURM send before the time is over, HUP what a terminal sends
    that is closed; where that is ignored (nohup) it stays so.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "Interruption":
        without_terminal = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        heard = [n for n in self.SIGNALS if n != signal.SIGHUP or not without_terminal]
        self.previous = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        name = signal.Signals(number).name
        with contextlib.suppress(OSError, RuntimeError):  # no terminal any more; within a print
            print(f"\n{name}: saving; Ctrl-C again stops at once", flush=True)
