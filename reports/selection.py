"""Selection of the model, the device and the kernels of a report by name, key or part of one."""

from __future__ import annotations

from collections.abc import Sequence

from ..database.reader import Reader
from ..database.schema.records import DeviceInfo, ModelInfo
from ..support.errors import UsageError
from ..tuner.kernel_names import chosen_kernels
from .launch_counts import ModelLaunches

_SHORTEST_KEY = 6


def select_model(store: Reader, wanted: str | None = None) -> ModelInfo:
    """Return the model of that name or capture key (its first six digits are enough); by default the one tuned last.

    Of several captures of one name, the one tuned last.

    Raises:
        UsageError: there is no such model, or the database is empty.
    """
    recent = [kept.info.capture_key for kept in store.sessions()]
    models = sorted(
        store.models(),
        key=lambda model: recent.index(model.capture_key) if model.capture_key in recent else len(recent),
    )
    if not models:
        raise _empty(store)
    for model in models:
        if wanted is None or wanted in (model.name, model.capture_key):
            return model
    if wanted is not None and len(wanted) >= _SHORTEST_KEY:
        for model in models:
            if model.capture_key.startswith(wanted.lower()):
                return model
    raise UsageError(
        f"there is no model {wanted!r} in {store.name}", f"there are: {_listed([model.name for model in models])}"
    )


def select_device(store: Reader, wanted: str | None = None, *, capture_key: str | None = None) -> DeviceInfo:
    """Return the device of that key, or whose key or model holds the text; by default the one of the last session.

    With ``capture_key`` the last session on that model counts first.

    Raises:
        UsageError: there is no such device or more than one, or the database is empty.
    """
    devices = store.devices()
    if not devices:
        raise _empty(store)
    if wanted is None:
        recent = store.sessions(capture_key=capture_key, limit=1) or store.sessions(limit=1)
        return recent[0].info.device
    needle = wanted.casefold()
    found = [device for device in devices if device.key.casefold() == needle] or [
        device for device in devices if needle in device.key.casefold() or needle in device.model.casefold()
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{wanted!r} fits more than one device", f"name one: {_listed([d.key for d in found])}")
    raise UsageError(
        f"there is no device {wanted!r} in {store.name}", f"there are: {_listed([d.key for d in devices])}"
    )


def select_kernels(
    launches: ModelLaunches, stages: Sequence[str] | None = None, patterns: Sequence[str] | None = None
) -> dict[str, str]:
    """Return the names by id of a model's kernels, of the named stages and of the patterns of `--kernels`.

    Raises:
        UsageError: there is no such stage, or a pattern names no kernel of the stages.
    """
    model = launches.model.name
    if unknown := [stage for stage in stages or () if stage not in launches.runs]:
        raise UsageError(f"{model} has no stage {', '.join(unknown)}", f"its stages: {', '.join(launches.runs)}")
    found = {
        one.workload.id: one.workload.name for one in launches.kernels if not stages or set(stages) & set(one.stages)
    }
    hint = "`wgtune report coverage` lists them; a pattern such as 'conv2d*' works too"
    return chosen_kernels(patterns or (), found, model, hint)


def _empty(store: Reader) -> UsageError:
    return UsageError(f"{store.name} holds no trials yet", "wgtune tune --model sd-v1-5")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names))
