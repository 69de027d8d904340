"""The program of a scheduled kernel: WGSL, or native code for TVM's runtimes."""

from __future__ import annotations

import tvm

from ...devices.limits import Tier
from ...devices.program import AnyProgram
from .tvm_native import NativeTier, emit_native
from .wgsl import emit_wgsl


def emit(mod: tvm.IRModule, tier: Tier) -> AnyProgram:
    """Return the program of ``mod``, which holds one scheduled PrimFunc ``main`` and is not changed.

    Raises:
        EmitError: TVM cannot generate WGSL for it, or it breaks a limit of ``tier``. Native code is built later, by the
            worker.
    """
    return emit_native(mod, tier) if isinstance(tier, NativeTier) else emit_wgsl(mod, tier)
