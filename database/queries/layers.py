"""The user's database over any number of releases, read as one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, tuple_

from ...support.enums import Runtime, TrialState
from ...support.errors import DatabaseError
from ..device_identity import Alias
from ..reader import TrialOrigin
from ..readonly import opened
from ..schema.engine import RELEASE_SUFFIX, parse_url, real_path, sqlite_path
from ..schema.records import (
    DeviceInfo,
    ModelInfo,
    ModelKernel,
    Record,
    SessionRecord,
    TrialKind,
    TrialPoint,
    TrialSummary,
    WorkloadInfo,
)
from ..schema.rows import trial
from ..sql_reader import SqlReader, installed_tvm
from ..store import Store
from .replay_status import known_stale

SHIPPED = Path(__file__).parents[1] / "shipped"
"""The folder of the releases that come with the program."""

_APART = 1 << 40
"""Difference between the ids of one layer and the next; ids of a database count from 1."""


class Layers:
    """The `Reader` of several databases: the first is the user's own, the others are releases.

    Where two layers have the same row, the earlier layer's is returned. A record of a later layer is returned only
    where it is faster, a baseline where it is later. A record's ``layer`` is the release's file name, empty for the
    user's own database. Schedules that the user's database knows to be stale (`wgtune db replay`) are left out of every
    layer.

    Ids of trials and sessions are the layer's own plus a multiple of 2**40, so that they are unique here. Messages
    must not print them: `origin` returns a record's own numbers. There is no transaction over several databases,
    hence no ``reading``: run a query on each of `layers`.
    """

    def __init__(self, own: SqlReader, releases: Sequence[SqlReader]) -> None:
        self.name = own.name
        self._layers: tuple[SqlReader, ...] = (own, *(_Release(release, own) for release in releases))

    @property
    def layers(self) -> tuple[SqlReader, ...]:
        """The user's own database, then each release."""
        return self._layers

    def close(self) -> None:
        """Close every layer."""
        for layer in self._layers:
            layer.close()

    def __enter__(self) -> Layers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def aliases(self) -> list[Alias]:
        """See `Reader.aliases`: those of the user's own database; releases have none."""
        return self._layers[0].aliases()

    def origin(self, record: Record) -> TrialOrigin:
        """See `Reader.origin`: the layer's own session id, and the release's file name."""
        index, session_id = divmod(record.session_id, _APART)
        return replace(self._layers[index].origin(replace(record, session_id=session_id)), release=self._release(index))

    def best(
        self,
        device_key: str,
        workload_ids: Collection[str],
        runtime: Runtime = Runtime.WGPU,
        *,
        fits: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> dict[str, Record]:
        """See `Reader.best`, over all layers; of equals the user's own."""
        return self._first_of(
            lambda layer: layer.best(device_key, workload_ids, runtime, fits=fits),
            lambda record, kept: record.latency_s < kept.latency_s,
        )

    def baselines(
        self, device_key: str, workload_ids: Collection[str], runtime: Runtime = Runtime.WGPU
    ) -> dict[str, Record]:
        """See `Reader.baselines`, the latest over all layers; of equals the user's own."""
        return self._first_of(
            lambda layer: layer.baselines(device_key, workload_ids, runtime),
            lambda record, kept: record.created > kept.created,
        )

    def times(
        self,
        device_keys: Collection[str],
        schedules: Mapping[str, Collection[str]],
        runtime: Runtime = Runtime.WGPU,
    ) -> dict[tuple[str, str, str], float]:
        """See `Reader.times`, the lowest over all layers."""
        found: dict[tuple[str, str, str], float] = {}
        for layer in self._layers:
            for key, seconds in layer.times(device_keys, schedules, runtime).items():
                found[key] = min(seconds, found.get(key, seconds))
        return found

    def tried(self, device_key: str, workload_id: str, runtime: Runtime = Runtime.WGPU) -> list[TrialSummary]:
        """See `Reader.tried`, the user's own first; a schedule that an earlier layer tried is not repeated."""
        found: list[TrialSummary] = []
        for index, layer in enumerate(self._layers):
            known = {one.trace for one in found}
            found += (
                replace(one, trial_id=one.trial_id + index * _APART)
                for one in layer.tried(device_key, workload_id, runtime)
                if one.trace not in known
            )
        return found

    def counts(
        self,
        device_key: str,
        workload_ids: Collection[str],
        runtime: Runtime = Runtime.WGPU,
        *,
        kind: TrialKind | None = None,
        with_stale: bool = True,
    ) -> dict[str, dict[TrialState, int]]:
        """See `Reader.counts`: of each state the largest number that a layer has, since layers may share trials."""
        found: dict[str, dict[TrialState, int]] = {}
        for layer in self._layers:
            counts = layer.counts(device_key, workload_ids, runtime, kind=kind, with_stale=with_stale)
            for workload_id, states in counts.items():
                kept = found.setdefault(workload_id, {})
                for state, count in states.items():
                    kept[state] = max(count, kept.get(state, 0))
        return found

    def history(
        self, device_key: str, workload_ids: Collection[str], runtime: Runtime = Runtime.WGPU
    ) -> list[TrialPoint]:
        """See `Reader.history`, what two layers share once."""
        found: dict[tuple[Any, ...], TrialPoint] = {}
        for index, layer in enumerate(self._layers):
            for one in layer.history(device_key, workload_ids, runtime):
                key = (one.workload_id, one.state, one.latency_s, one.ended)
                found.setdefault(key, replace(one, session_id=one.session_id + index * _APART))
        return sorted(found.values(), key=lambda point: point.ended)

    def devices(self) -> list[DeviceInfo]:
        """See `Reader.devices`; described as in the first layer that knows the device."""
        found: dict[str, DeviceInfo] = {}
        for layer in self._layers:
            for info in layer.devices():
                found.setdefault(info.key, info)
        return [found[key] for key in sorted(found)]

    def models(self) -> list[ModelInfo]:
        """See `Reader.models`: releases' first, the last tuned last."""
        found: dict[str, ModelInfo] = {}
        for layer in reversed(self._layers):
            for info in layer.models():
                found.pop(info.capture_key, None)
                found[info.capture_key] = info
        return list(found.values())

    def model_kernels(self, capture_key: str) -> list[ModelKernel]:
        """See `Reader.model_kernels`, of the first layer that knows the model."""
        return next((found for layer in self._layers if (found := layer.model_kernels(capture_key))), [])

    def workloads(self, workload_ids: Collection[str]) -> dict[str, WorkloadInfo]:
        """See `Reader.workloads`, each of the first layer that has it, with the forms of TVM that any layer has."""
        found: dict[str, WorkloadInfo] = {}
        for layer in self._layers:
            for key, info in layer.workloads(workload_ids).items():
                first = found.setdefault(key, info)
                forms = {form.tvm_version: form for form in (*info.forms, *first.forms)}
                found[key] = replace(first, forms=tuple(forms[version] for version in sorted(forms)))
        return found

    def sessions(
        self, *, device_key: str | None = None, capture_key: str | None = None, limit: int | None = None
    ) -> list[SessionRecord]:
        """See `Reader.sessions`: the user's own, then each release's.

        A session in two layers is listed twice, since records refer to it by their own layer's id.
        """
        found: list[SessionRecord] = []
        for index, layer in enumerate(self._layers):
            for kept in layer.sessions(device_key=device_key, capture_key=capture_key, limit=limit):
                found.append(replace(kept, session_id=kept.session_id + index * _APART))
        return found[:limit]

    def _first_of(
        self, ask: Callable[[SqlReader], dict[str, Record]], precedes: Callable[[Record, Record], bool]
    ) -> dict[str, Record]:
        """Return the answers of all layers, of several the one that precedes the others."""
        found: dict[str, Record] = {}
        for index, layer in enumerate(self._layers):
            for workload_id, record in ask(layer).items():
                kept = found.get(workload_id)
                if kept is None or precedes(record, kept):
                    found[workload_id] = self.of_layer(record, index)
        return found

    def of_layer(self, record: Record, index: int) -> Record:
        """See `Reader.of_layer`."""
        return replace(
            record,
            trial_id=record.trial_id + index * _APART,
            session_id=record.session_id + index * _APART,
            layer=self._release(index),
        )

    def _release(self, index: int) -> str:
        """Return the file name of a layer that is a release, empty for the user's own database."""
        return Path(self._layers[index].name).name if index else ""


class _Release(SqlReader):
    """A release whose stale schedules are recorded in the user's own database: a release is never written to."""

    def __init__(self, release: SqlReader, own: SqlReader) -> None:
        super().__init__(release._engine, release.name)
        self._own = own

    def stale(self) -> ColumnElement[bool]:
        if not self._known_stale:
            return super().stale()
        # As one parameter: there may be more of them than a statement takes.
        pair = func.json_each(json.dumps(self._known_stale)).table_valued("value").c.value
        pairs = select(func.json_extract(pair, "$[0]"), func.json_extract(pair, "$[1]"))
        return or_(super().stale(), tuple_(trial.c.workload_id, trial.c.schedule_id).in_(pairs))

    @cached_property
    def _known_stale(self) -> list[tuple[int, int]]:
        return known_stale(self._own, self, installed_tvm())


@contextmanager
def open_layers(
    url: str | None = None,
    *,
    releases: Sequence[Path] = (),
    shipped: bool = True,
    warn: Callable[[str], None] = lambda message: None,
) -> Iterator[Layers]:
    """Open the database at ``url`` (None: the user's own) over ``releases``, files or folders, and those shipped.

    The user's own may be missing: then the releases stand alone. One that ``url`` or ``WGTUNE_DB`` names must be
    there. A shipped release that cannot be read is told to ``warn`` and left out, and so is one of ``releases``.

    Raises:
        DatabaseError: as `Store.open`; or one of ``releases`` is not there.
    """
    with _own(url) as own, open_releases(releases, shipped=shipped, warn=warn) as readers:
        yield Layers(own, readers)


@contextmanager
def open_releases(
    named: Sequence[Path] = (), *, shipped: bool = True, warn: Callable[[str], None] = lambda message: None
) -> Iterator[list[SqlReader]]:
    """Open the releases in `release_files`; one that cannot be read is told to ``warn`` and left out.

    Raises:
        DatabaseError: one of ``named`` is not there.
    """
    with ExitStack() as stack:
        readers = []
        for path in release_files(named, shipped=shipped):
            try:
                readers.append(stack.enter_context(opened(str(path))))
            except DatabaseError as error:
                warn(f"the release {path.name} is left out: {error.message}")
        yield readers


def release_files(named: Sequence[Path] = (), *, shipped: bool = True) -> list[Path]:
    """Return the release files: those named, those in folders that are named, and with ``shipped`` the program's own.

    Raises DatabaseError where a named one is not there.
    """
    found: list[Path] = []
    for path in (*named, *([SHIPPED] if shipped else [])):
        if not os.path.exists(path):
            raise DatabaseError(f"there is no release at {str(path)!r}", "name a release file, or a folder of them")
        found += sorted(path.glob(f"*{RELEASE_SUFFIX}")) if path.is_dir() else [path]
    return list(dict.fromkeys(map(real_path, found)))


def _own(url: str | None) -> Store:
    path = sqlite_path(parse_url(url))
    named = url is not None or "WGTUNE_DB" in os.environ
    if not named and path is not None and not path.exists():
        nothing = Store.memory()
        nothing.name = str(path)
        return nothing
    return Store.open(url, create=False)
