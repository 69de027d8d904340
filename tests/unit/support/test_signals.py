"""The first signal asks, the second one leaves; what may be cut short is, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from wgtune.support.signals import EXIT_STATUS, Interrupted, Interrupts


def test_a_signal_outside_is_only_noted():
    asked = []
    with Interrupts(on_request=lambda: asked.append(1)) as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.requested and asked == [1]


def test_a_signal_inside_cuts_short():
    with Interrupts() as interrupts, pytest.raises(Interrupted), interrupts.cutting_short():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()


def test_what_would_be_cut_short_does_not_begin():
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted), interrupts.cutting_short():
            raise AssertionError("began")


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_second_signal_ends_the_process():
    program = """
import os, signal, time
from wgtune.support.signals import Interrupts
with Interrupts(on_leave=lambda: print("leaving", flush=True)):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (EXIT_STATUS, "leaving\n", "")
