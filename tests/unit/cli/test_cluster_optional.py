"""On one machine nothing of Dask is needed, or even imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
{before}
import wgtune.cli.app, wgtune.cli.cluster, wgtune.cli.tune
import wgtune.tuner.session.session, wgtune.tuner.fleet.session_process
import wgtune.tuner.fleet.fleet, wgtune.reports.live.fleet
import wgtune.build.runtime.batch, wgtune.devices.worker.factory
found = sorted(name for name in sys.modules if name.split(".")[0] in ("dask", "distributed"))
assert not found, found
{after}
"""


def run(before: str = "", after: str = "") -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(before=before, after=after)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)


def test_nothing_of_dask_is_imported_on_one_machine() -> None:
    result = run()
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", [["agent"], ["tune", "-m", "sd-v1-5"]], ids=lambda words: words[0])
def test_without_dask_the_commands_say_what_to_install(command: list[str]) -> None:
    hide = "sys.modules['distributed'] = None; sys.modules['dask'] = None"
    after = f"sys.argv = ['wgtune', *{command!r}, '--scheduler', 'tcp://127.0.0.1:9']; wgtune.cli.app.main()"
    result = run(after=f"{hide}; {after}")
    assert result.returncode == 2, result.stderr
    assert "Dask is not installed" in result.stderr and "wgtune[cluster]" in result.stderr
