"""What tests of several folders share: the demo pipeline and its bundle, built once per run; a PostgreSQL server."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import postgresql
import pytest
from folders import TESTS

from wgtune.database.schema.records import DeviceInfo
from wgtune.database.store import Store
from wgtune.support.enums import WeightPrecision

LLVMPIPE = DeviceInfo("vulkan:llvmpipe", "vulkan", "mesa", "", "llvmpipe", True)
"""A CPU's adapter: bundles for it are drawn faster here, natively and in Chromium, than those for unknown GPUs."""

# A job in a shell's background starts with Ctrl-C ignored, and what tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by what it needs: its folder says whether a GPU or a browser, its fixtures whether PostgreSQL."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in ("gpu", "browser"):
            item.add_marker(folder)
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = list(item.callspec.params.values()) if hasattr(item, "callspec") else []
        backend = parameters if fixtures & {"any_store", "shared_url"} else []
        if fixtures & {"postgresql_server", "postgresql_url"} or "postgresql" in backend:
            item.add_marker("postgres")


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo pipeline as diffusers saves it."""
    from wgtune.cli.demo.model import make_demo_pipeline

    return make_demo_pipeline(tmp_path_factory.mktemp("demo") / "demo")


@pytest.fixture(scope="session")
def demo_bundle(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo pipeline as a bundle of untuned kernels without the page; tests must not change it."""
    from wgtune.build.bundle.builder import BuildRequest, build_bundle

    folder = tmp_path_factory.mktemp("bundle") / "dist"
    build_bundle(BuildRequest(model=str(demo_folder), output=folder, max_steps=20, page=False), None)
    return folder


@pytest.fixture(scope="session")
def demo_bundle_of(
    demo_folder: Path, demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[WeightPrecision], Path]:
    """Makes the demo pipeline's bundle as `demo_bundle` is, with weights of a precision."""
    from wgtune.build.bundle.builder import BuildRequest, build_bundle
    from wgtune.tuner.ir import CaptureOptions

    made = {WeightPrecision.F32: demo_bundle}

    def bundle(weights: WeightPrecision) -> Path:
        if weights not in made:
            folder = tmp_path_factory.mktemp("bundle") / "dist"
            options = CaptureOptions(weights=weights)
            request = BuildRequest(str(demo_folder), folder, LLVMPIPE, options, max_steps=20, page=False)
            build_bundle(request, None)
            made[weights] = folder
        return made[weights]

    return bundle


@pytest.fixture(scope="session")
def demo_in_parts(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo pipeline at 192², for a tier that binds less than its decoder's largest pictures (2.25 MiB)."""
    from wgtune.build.bundle.builder import BuildRequest, build_bundle
    from wgtune.devices.limits import Tier, find_tier
    from wgtune.tuner.ir import CaptureOptions

    folder = tmp_path_factory.mktemp("parts") / "dist"
    most = 2 << 20
    tier = Tier("small", {**find_tier("default").limits, "maxStorageBufferBindingSize": most})
    options = CaptureOptions(width=192, height=192, max_binding=most)
    request = BuildRequest(str(demo_folder), folder, LLVMPIPE, options, tier=tier, max_steps=5, page=False)
    build_bundle(request, None)
    return folder


@pytest.fixture(scope="session")
def _demo_captures(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the capture of the demo pipeline's text encoder, and nothing else."""
    from wgtune.tuner.capture.model_capture import capture_model

    folder = tmp_path_factory.mktemp("captures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WGTUNE_CACHE", str(folder))
        capture_model(str(demo_folder), stages=["clip"])
    return folder


@pytest.fixture
def demo_cache(_demo_captures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, in which the demo pipeline's text encoder is captured already."""
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(_demo_captures, tmp_path / "cache")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    """A PostgreSQL server of this run's own. Without PostgreSQL the tests fail: `make` installs it."""
    server = postgresql.Server()
    yield server
    server.stop()


@pytest.fixture
def postgresql_url(postgresql_server: postgresql.Server) -> str:
    """A fresh PostgreSQL database with wgtune's tables."""
    return postgresql_server.database()


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that several processes can open, of each kind: the path of a new SQLite file, or PostgreSQL's URL."""
    if request.param == "sqlite":
        return str(tmp_path / "shared.db")
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each kind, empty."""
    if request.param == "memory":
        store = Store.memory()
    elif request.param == "sqlite":
        store = Store.open(str(tmp_path / "test.db"))
    else:
        store = Store.open(request.getfixturevalue("postgresql_url"))
    with store:
        yield store
