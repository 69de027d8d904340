"""Databases with made-up measurements, built as tuning builds them: through the store and nothing else."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from wgtune.database.exchange.opaque import OpaqueEntry
from wgtune.database.queries.compiled_facts import CompiledShader
from wgtune.database.schema.records import (
    DeviceInfo,
    ModelInfo,
    ModelKernel,
    Param,
    Runtime,
    SessionInfo,
    TrialEnd,
    TrialKind,
    TrialStart,
    TvmForm,
    WorkloadInfo,
)
from wgtune.database.schema.rows import opaque
from wgtune.database.store import Store
from wgtune.support.enums import TrialState
from wgtune.support.hashing import digest_of
from wgtune.support.shader_facts import ShaderFacts

HOST = "bench"
CAPTURE = "c" * 64
LLVMPIPE = DeviceInfo("vulkan:llvmpipe", "Vulkan", "Mesa", "llvmpipe", "llvmpipe (LLVM 15.0.6, 256 bits)", True)
RADEON = DeviceInfo("vulkan:radeon-rx-7600", "Vulkan", "AMD", "rdna-3", "AMD Radeon RX 7600", False)


def workload(name: str, flops: float = 2e9, nbytes: int = 4 << 20) -> WorkloadInfo:
    text = f"kernel {name} {flops} {nbytes}"
    return WorkloadInfo(
        id=hashlib.sha256(text.encode()).hexdigest(),
        name=name,
        text=text,
        forms=(TvmForm("0.27.0.post1", "{}", "123"),),
        params=(Param("a", (64, 64), "float32"), Param("out", (64, 64), "float32")),
        outputs=(1,),
        flops=flops,
        nbytes=nbytes,
    )


EMBED = workload("take_add_1a2b3c4d", 0.0, 300 << 10)
SOFTMAX = workload("softmax_5e6f7a8b", 5e6, 2 << 20)
MATMUL = workload("matmul_bias_add_9c0d1e2f", 4e9, 12 << 20)
CONV = workload("conv2d_add_silu_33445566", 9e9, 30 << 20)
CLAMP = workload("clip_multiply_77889900", 1e6, 3 << 20)
KERNELS = [
    ModelKernel("clip", EMBED.id, 1, 0),
    ModelKernel("clip", MATMUL.id, 6, 1),
    ModelKernel("unet", MATMUL.id, 10, 2),
    ModelKernel("unet", SOFTMAX.id, 4, 3),
    ModelKernel("unet", CONV.id, 3, 4),
    ModelKernel("vae", CONV.id, 2, 5),
    ModelKernel("vae", CLAMP.id, 1, 6),
]


def add_demo(
    store: Store, *, capture_key: str = CAPTURE, name: str = "demo", batch: int = 1, guidance: bool = True
) -> None:
    """A model of three stages and five kernels, two of which are in two stages."""
    store.add_workloads([EMBED, SOFTMAX, MATMUL, CONV, CLAMP])
    options = {"width": 128, "height": 128, "batch": batch, "guidance": guidance, "max_binding": 128 << 20}
    store.add_model(ModelInfo(capture_key, name, options), KERNELS)


def session(
    device: DeviceInfo = LLVMPIPE,
    *,
    runtime: Runtime = Runtime.WGPU,
    capture_key: str = CAPTURE,
    model: str = "demo",
    tier: str = "default",
    pid: int | None = None,
) -> SessionInfo:
    return SessionInfo(
        device=device,
        runtime=runtime,
        driver="Mesa 22.3.6",
        adapter={"limits": {"maxComputeInvocationsPerWorkgroup": 256}, "features": ["timestamp-query"]},
        toolchain={"wgtune": "0.1.0", "apache-tvm": "0.27.0.post1", "wgpu": "0.32.0"},
        model=model,
        capture_key=capture_key,
        tier=tier,
        budget={"trials": 64},
        seed=7,
        reason="a test",
        host=HOST,
        pid=os.getpid() if pid is None else pid,
    )


def start(session_id: int, kernel: WorkloadInfo, trace: str = "", kind: TrialKind = TrialKind.SEARCH) -> TrialStart:
    return TrialStart(
        session_id=session_id,
        workload_id=kernel.id,
        kind=kind,
        trace=trace,
        program_digest=hashlib.sha256(trace.encode()).hexdigest(),
        needs={"threads": 64, "workgroup_bytes": 4096, "features": []},
        launches=1,
        seed=7,
    )


def ok(*samples_s: float, max_error: float = 1e-6) -> TrialEnd:
    return TrialEnd(
        TrialState.OK, samples_s, "timestamp", compile_s=0.5, run_s=0.1, max_error=max_error, rtol=1e-3, atol=1e-4
    )


def failed(state: TrialState, error: str = "it failed") -> TrialEnd:
    return TrialEnd(state, error=error, rtol=1e-3, atol=1e-4)


def measure(
    store: Store,
    session_id: int,
    kernel: WorkloadInfo,
    end: TrialEnd,
    trace: str = "",
    kind: TrialKind = TrialKind.SEARCH,
) -> int:
    """One whole trial."""
    trial_id = store.begin_trial(start(session_id, kernel, trace, kind))
    store.end_trial(trial_id, end)
    return trial_id


def baseline(store: Store, session_id: int, kernel: WorkloadInfo, end: TrialEnd) -> int:
    return measure(store, session_id, kernel, end, kind=TrialKind.BASELINE)


def opaque_entries(store: Store) -> list[OpaqueEntry]:
    """Return every opaque entry, in the order in which they were kept."""
    with store.reading() as connection:
        return [
            OpaqueEntry(row.kind, row.source, row.position, row.text, row.reason)
            for row in connection.execute(select(opaque).order_by(opaque.c.id))
        ]


FACTS = ShaderFacts(
    vgprs=56,
    sgprs=128,
    spilled_vgprs=0,
    spilled_sgprs=0,
    scratch_bytes=0,
    workgroup_bytes=2048,
    waves=18,
    instructions=600,
    code_bytes=3080,
    latency_cycles=6059,
    inverse_throughput_cycles=1656,
    hot_instructions=226,
    hot_multiply_adds=128,
)
"""The facts of a matrix product's shader."""

COMPILER = "Chromium 156.0.8078.108, Mesa 22.3.6 (RADV)"
CHIP = "compile-only:radv-navi21"


def compiled(name: str, *, compiler: str = COMPILER, chip: str = CHIP, **facts: Any) -> CompiledShader:
    """Return the facts of the shader called ``name``."""
    return CompiledShader(digest_of(name), compiler, chip, replace(FACTS, **facts))
