"""What a session's process tells its parent, when it is told to stop at the worst moment."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import io, signal, sys, time
from wgtune.support.child_main import _Answers
from wgtune.tuner.session.events import KernelExhausted, Stopping
from wgtune.support.signals import Interrupts
from wgtune.tuner.fleet.session_process import _EventSender

class Pipe(io.BytesIO):
    "Ctrl-C comes while the first message is on its way."
    def write(self, data):
        count = super().write(data)
        if self.tell() == count:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0)
        return count

pipe = Pipe()
sender = _EventSender(_Answers(pipe))
with Interrupts(on_request=lambda: sender.on(Stopping())) as interrupts:
    sender.on(KernelExhausted("id", 3))
    deadline = time.monotonic() + 20
    while pipe.getvalue().count(b"\\n") < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
assert interrupts.requested
sys.stdout.write(pipe.getvalue().decode())
"""


def test_ctrl_c_in_the_middle_of_a_message_stops_nobody_from_telling() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["KernelExhausted", "Stopping"]
