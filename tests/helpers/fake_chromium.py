"""A browser that is none: it speaks the DevTools protocol over descriptors 3 and 4, and translates by rule.

A shader whose text names a word below makes it behave accordingly; any other is "translated" into its own text.
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

VERSION = "Chromium 1.2.3.4 of a test"

_PROGRAM = """#!{python}
import json, os, sys, time
if "--version" in sys.argv:
    print({version!r})
    sys.exit()
open({log!r}, "a").write("start " + " ".join(sys.argv[1:]) + "\\n")
if os.environ.get("FAKE_CHROMIUM") == "silent":
    time.sleep(60)

def answer(message):
    data = json.dumps(message).encode() + b"\\0"
    while data:
        data = data[os.write(4, data):]

buffer = b""
while True:
    while b"\\0" not in buffer:
        block = os.read(3, 1 << 16)
        if not block:
            sys.exit()
        buffer += block
    line, _, buffer = buffer.partition(b"\\0")
    request = json.loads(line)
    method, result, events = request["method"], {{}}, []
    if method == "Target.createTarget":
        result = {{"targetId": "t"}}
    elif method == "Target.attachToTarget":
        result = {{"sessionId": "s"}}
    elif method == "Page.navigate":
        events.append({{"method": "Page.loadEventFired", "params": {{}}}})
    elif method == "Runtime.evaluate":
        script = request["params"]["expression"]
        value = ""
        if "requestAdapter" in script:
            open({log!r}, "a").write("device\\n")
            value = os.environ.get("FAKE_CHROMIUM_ADAPTER", "")
        elif "CRASH" in script:
            sys.stderr.write("fake: a fault\\n")
            os.abort()
        elif "HANG" in script:
            time.sleep(60)
        elif "REFUSE" in script:
            value = "line 3: unresolved value 'x'\\nmore"
        elif "THROW" in script:
            answer({{"id": request["id"], "result": {{"exceptionDetails": {{"text": "Uncaught"}}}}}})
            continue
        else:
            noise = {{"entry": {{"text": "// Dumped WGSL: " + script}}}}
            dump = {{"entry": {{"text": "/* Dumped SPIRV disassembly */" + script}}}}
            events = [{{"method": "Log.entryAdded", "params": noise}}, {{"method": "Log.entryAdded", "params": dump}}]
        result = {{"result": {{"value": value}}}}
    for event in events if "LATE" not in line.decode() else []:
        answer(event)
    answer({{"id": request["id"], "result": result}})
    for event in events if "LATE" in line.decode() else []:
        answer(event)
"""


class FakeChromium:
    """The program, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "fake-chromium"
        self._log = folder / "log.txt"
        self._log.touch()
        self.path.write_text(_PROGRAM.format(python=sys.executable, version=VERSION, log=str(self._log)))
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)

    @property
    def starts(self) -> list[str]:
        """The arguments of each start."""
        return [line[6:] for line in self._log.read_text().splitlines() if line.startswith("start ")]

    @property
    def devices(self) -> int:
        """How often a device was asked for."""
        return self._log.read_text().splitlines().count("device")


def fake_assembler(folder: Path) -> Path:
    """Return a program in place of ``spirv-as`` that writes its input back, and refuses what says BROKEN."""
    path = folder / "spirv-as"
    path.write_text(
        f"#!{sys.executable}\n"
        "import sys\ntext = sys.stdin.read()\n"
        "if 'BROKEN' in text: sys.exit('error: 3: expected an opcode')\n"
        "sys.stdout.write(text)\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
