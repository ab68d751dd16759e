"""A signal waits until a step has ended, and ends a step that does not."""

import os
import signal
import threading
import time

import pytest

from mistral_mlx.distributed.held_signals import Alarm, held_signals


class Signalled(Exception):
    pass


@pytest.fixture(autouse=True)
def _raising():
    def handle(number, frame):
        raise Signalled(number)

    before = signal.signal(signal.SIGINT, handle)
    yield
    signal.signal(signal.SIGINT, before)


def send():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_acts_when_the_step_has_ended():
    done = []

    def step():
        with held_signals(Alarm(lambda: None)):
            send()
            done.append(1)

    with pytest.raises(Signalled):
        step()
    assert done == [1]


def test_a_signal_acts_where_the_step_can_be_left():
    with held_signals(Alarm(lambda: None)) as held:
        send()
        with pytest.raises(Signalled):
            held.act()


def test_the_handler_and_the_wakeup_descriptor_of_others_come_back():
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    handler, before = signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(writes)
    try:
        with held_signals(Alarm(lambda: None)):
            pass
        assert signal.getsignal(signal.SIGINT) is handler
        assert signal.set_wakeup_fd(before) == writes
    finally:
        signal.set_wakeup_fd(before)
        os.close(reads)
        os.close(writes)


def test_an_error_of_the_step_comes_before_the_signal():
    def step():
        with held_signals(Alarm(lambda: None)):
            send()
            raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        step()


def test_a_step_that_does_not_go_on_after_a_signal_is_ended():
    """Ctrl-C did nothing when the machine of another process slept."""
    rung = threading.Event()

    def step():
        with held_signals(Alarm(rung.set, 0.2)):
            send()
            assert rung.wait(10)

    with pytest.raises(Signalled):
        step()


def test_a_step_that_goes_on_after_a_signal_is_not_ended():
    rung, until = threading.Event(), time.monotonic() + 0.6
    with held_signals(Alarm(rung.set, 0.3)) as held:
        send()
        held.numbers.clear()
        while time.monotonic() < until:
            held.act()
            time.sleep(0.05)
    assert not rung.is_set()


def test_another_signal_than_one_that_ends_the_program_rings_nothing():
    rung = threading.Event()
    before = signal.signal(signal.SIGWINCH, lambda number, frame: None)
    try:
        with held_signals(Alarm(rung.set, 0.1)):
            os.kill(os.getpid(), signal.SIGWINCH)
            assert not rung.wait(0.5)
    finally:
        signal.signal(signal.SIGWINCH, before)
