"""Stopping a long run without losing its work."""

import signal

STOPPED = 75  # exit status of a run that saved and wants to be continued (EX_TEMPFAIL)


class Interruption:
    """While entered, Ctrl-C and SIGTERM only set `requested`; a second Ctrl-C stops at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "Interruption":
        self.previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        name = signal.Signals(number).name
        print(f"\n{name}: saving after this step; Ctrl-C again stops at once", flush=True)
