"""A PostgreSQL server of the tests' own: in a folder that goes with it, on a Unix socket there, with nothing kept."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from wgtune.database.store import Store

_TEMPLATE = "wgtune_template"
_START_S = 60


def programs() -> Path:
    """The folder of PostgreSQL's programs; Debian keeps the server's off the PATH. Fails where there are none."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    found_folders = [
        folder.parent
        for pattern in ("usr/lib/postgresql/*/bin/initdb", "opt/homebrew/opt/postgresql*/bin/initdb")
        for folder in sorted(Path("/").glob(pattern))
    ]
    assert found_folders, "PostgreSQL is not installed; `make postgresql` installs it"
    return found_folders[-1]


class Server:
    """Started when made; `database` gives each test a fresh database with wgtune's tables."""

    def __init__(self) -> None:
        # PostgreSQL refuses to run as root; Debian's package brings a user for it. Its folder must not lie in pytest's,
        # which that user may not enter; and a socket's path has room for some hundred characters.
        who = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        self.folder = Path(tempfile.mkdtemp(prefix="wgtune-pg-"))
        if who:
            shutil.chown(self.folder, "postgres", "postgres")
        data = self.folder / "data"
        initdb = [programs() / "initdb", "-D", data, "-U", "wgtune", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
        done = subprocess.run(initdb, capture_output=True, text=True, cwd=self.folder, **who)
        assert done.returncode == 0, done.stderr
        settings = ["listen_addresses=", f"unix_socket_directories={self.folder}", "fsync=off", "max_connections=60"]
        options = [argument for setting in settings for argument in ("-c", setting)]
        self._log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(
            [programs() / "postgres", "-D", data, *options], stdout=self._log, stderr=self._log, cwd=self.folder, **who
        )
        self._numbers = itertools.count(1)
        self._await()
        self._run(f"CREATE DATABASE {_TEMPLATE}")
        Store.open(self.url(_TEMPLATE)).close()

    def url(self, name: str) -> str:
        """How wgtune names the database ``name``."""
        return f"postgresql://wgtune@/{name}?host={self.folder}"

    def database(self, *, empty: bool = False) -> str:
        """The URL of a new database, with wgtune's tables unless ``empty``."""
        name = f"test_{next(self._numbers)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {'template1' if empty else _TEMPLATE}")
        return self.url(name)

    def stop(self) -> None:
        """Ends the server, whoever is connected, and removes its folder."""
        self._process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def _await(self) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                self._run("SELECT 1")
                return
            except psycopg.OperationalError as error:
                ended = self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    log = (self.folder / "log").read_text(errors="replace")
                    self.stop()
                    raise AssertionError(f"PostgreSQL did not start: {error}\n{log}") from None
                time.sleep(0.05)
