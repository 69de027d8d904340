"""Print one driver family's devices as JSON: ``python -m wgtune.devices.discovery.probe vulkan``.

A process of its own, because a driver may crash, hang or print when it is loaded. `discovery` starts it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib import metadata

from ...support.enums import Runtime
from ..device import Device
from ..naming import device_key, model_and_architecture, slug


def main(source: str) -> int:
    """Print the devices of one driver family to the standard output that this process was started with."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # drivers print to standard output
    if source == Runtime.TVM:
        devices = _processor()
    else:
        devices = _tvm_devices(Runtime(source)) if source in _TVM else _wgpu_devices(source)
    json.dump([device.to_json() for device in devices], answer)
    answer.flush()
    # Skip the interpreter's shutdown: some drivers crash in their destructors.
    os._exit(0)


def _wgpu_devices(backend: str) -> list[Device]:
    from ..webgpu import gpu

    gpu.use_backend(backend)
    return [device for device, _ in gpu.list_adapters()]


def _tvm_devices(runtime: Runtime) -> list[Device]:
    """Return the devices that TVM's runtime reaches; none where the wheel lacks it or the machine has no driver."""
    kind, has_driver = _TVM[runtime]
    if not has_driver():  # importing TVM takes seconds
        return []
    import tvm

    devices: list[Device] = []
    while (found := tvm.device(kind, len(devices))).exist:
        # TVM's Metal runtime reports no name.
        model, architecture = model_and_architecture(found.device_name or "Apple GPU")
        version = found.compute_version or ""
        if kind == "cuda":
            vendor, architecture = "nvidia", f"sm_{version.replace('.', '')}"
        else:
            vendor = slug(model.split()[0])
        devices.append(
            Device(
                key=device_key(runtime.value if kind == "metal" else kind, model, architecture),
                backend=kind,
                vendor=vendor,
                architecture=architecture,
                model=model,
                driver=f"TVM {tvm.__version__}",
                adapter_type="integrated" if kind == "metal" else "discrete",
                software=False,
                limits={
                    "maxComputeInvocationsPerWorkgroup": found.max_threads_per_block or 0,
                    "maxComputeWorkgroupStorageSize": found.max_shared_memory_per_block or 0,
                },
                features=(),
                runtime=runtime,
                index=len(devices),
            )
        )
    return devices


def _processor() -> list[Device]:
    """Return this machine's processor as a device for TVM's native code."""
    model = _processor_name()
    return [
        Device(
            key=device_key("tvm", f"cpu {model}", platform.machine()),
            backend="llvm",
            vendor=slug(model.split()[0]),
            architecture=platform.machine().lower(),
            model=model,
            driver=f"TVM {metadata.version('apache-tvm')}",
            adapter_type="cpu",
            software=True,
            limits={},
            features=(),
            runtime=Runtime.TVM,
            index=0,
        )
    ]


def _processor_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return model_and_architecture(line.partition(":")[2].strip())[0]
    return platform.processor() or platform.machine()


def _has_cuda_driver() -> bool:
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


_TVM: dict[str, tuple[str, Callable[[], bool]]] = {
    Runtime.TVM_CUDA: ("cuda", _has_cuda_driver),
    Runtime.TVM_METAL: ("metal", lambda: sys.platform == "darwin"),
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
