"""Kind I: which signals stop a run, in a shell's background and behind nohup too."""

import os
import signal

import pytest

from dinogrl_jax.training.interruption import Interruption


@pytest.fixture(params=[signal.SIG_IGN, signal.SIG_DFL])
def before(request):
    """What signals do in the shell; of a job in the background Ctrl-C is ignored."""
    kept = {number: signal.signal(number, request.param) for number in Interruption.SIGNALS}
    yield request.param
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", Interruption.SIGNALS)
def test_a_signal_is_noted_and_its_handler_comes_back(number, before):
    ignored = before == signal.SIG_IGN and number == signal.SIGHUP  # as nohup asks
    with Interruption() as stop:
        os.kill(os.getpid(), number)
        assert stop.requested == (not ignored)
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), Interruption() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGINT)


def test_a_closed_terminal_stops_as_it_should(monkeypatch):
    def closed(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.print", closed)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
    try:
        with Interruption() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert stop.requested
