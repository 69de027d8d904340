"""What a search may know beforehand: other devices of its kind, and its own trials of other kernels."""

from __future__ import annotations

from dataclasses import replace

from synthetic_store import CONV, LLVMPIPE, MATMUL, RADEON, add_demo, measure, ok, session, start

from wgtune.database.schema.records import DeviceInfo, WorkloadInfo
from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.support.enums import Runtime
from wgtune.tuner.search.features import VERSION
from wgtune.tuner.search.knowledge import features_of, known_examples, lent_schedules

SWIFTSHADER = replace(LLVMPIPE, key="vulkan:swiftshader", model="SwiftShader Device")
PEAKS = {"flops_per_s": 2.0**30}


def device(info: DeviceInfo, runtime: Runtime = Runtime.WGPU) -> Device:
    known = (info.key, info.backend, info.vendor, info.architecture, info.model)
    return Device(*known, "Mesa 22.3.6", "cpu", info.software, {}, (), runtime, 0)


def teach(store: Store, info: DeviceInfo, kernel: WorkloadInfo, trace: str, version: int = VERSION) -> None:
    at = store.begin_session(replace(session(info), calibration=PEAKS))
    told = replace(start(at, kernel, trace), features={"point.threads": 5.0}, features_version=version)
    store.end_trial(store.begin_trial(told), ok(0.01))


def test_examples_are_of_other_devices_and_of_other_kernels_here() -> None:
    with Store.memory() as store:
        add_demo(store)
        teach(store, LLVMPIPE, MATMUL, "own")
        teach(store, LLVMPIPE, CONV, "own, another kernel")
        teach(store, SWIFTSHADER, MATMUL, "another device")
        teach(store, SWIFTSHADER, CONV, "another device and kernel")
        teach(store, RADEON, MATMUL, "a GPU")
        teach(store, SWIFTSHADER, MATMUL, "other features", VERSION + 1)

        def groups(others: bool) -> set[tuple[str, ...]]:
            return {one.group[:2] for one in known_examples(store, device(LLVMPIPE), [MATMUL.id], others=others)}

        cold = {(CONV.id, LLVMPIPE.key)}
        assert groups(others=False) == cold
        assert groups(others=True) == cold | {(MATMUL.id, SWIFTSHADER.key), (CONV.id, SWIFTSHADER.key)}
        assert known_examples(store, device(LLVMPIPE, Runtime.TVM), [MATMUL.id], others=True) == []
        (gpu,) = known_examples(store, replace(device(RADEON), key="vulkan:new"), [MATMUL.id], others=True)
        assert gpu.features == {"point.threads": 5.0} and gpu.device["device.flops_per_s"] == 30.0
        assert gpu.device["device.software"] == 0.0 and "device.iterations" not in gpu.device


def test_schedules_are_lent_with_or_without_features() -> None:
    with Store.memory() as store:
        add_demo(store)
        teach(store, SWIFTSHADER, MATMUL, "featured")
        measure(store, store.begin_session(session(SWIFTSHADER)), MATMUL, ok(0.001), "bare")
        lent = lent_schedules(store, device(LLVMPIPE), MATMUL.id)
        assert [(one.trace, one.known, one.example.latency_s) for one in lent] == [
            ("bare", False, 0.001),
            ("featured", True, 0.01),
        ]
        assert lent_schedules(store, device(SWIFTSHADER), MATMUL.id) == []


def test_a_driver_s_quirks_are_features_here_and_in_records() -> None:
    with Store.memory() as store:
        add_demo(store)
        teach(store, LLVMPIPE, MATMUL, "own")
        (example,) = known_examples(store, device(SWIFTSHADER), [MATMUL.id], others=True)
    here = features_of(device(LLVMPIPE), PEAKS)
    assert here["device.iterations"] == example.device["device.iterations"] == 16.0
    assert here["device.flops_per_s"] == example.device["device.flops_per_s"]
