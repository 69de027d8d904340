"""A scheduled kernel as the program that a tier's devices run: WGSL, or native code for TVM's runtimes."""

from __future__ import annotations

import tvm

from ...devices.limits import Tier
from ...devices.program import AnyProgram
from .tvm_native import NativeTier, emit_native
from .wgsl import emit_wgsl


def emit(mod: tvm.IRModule, tier: Tier) -> AnyProgram:
    """The program of ``mod``, which holds one scheduled PrimFunc ``main``; ``mod`` is left as it is.

    Raises:
        EmitError: TVM cannot make WGSL of it, or it breaks a limit of ``tier``. Native code is built where it runs.
    """
    return emit_native(mod, tier) if isinstance(tier, NativeTier) else emit_wgsl(mod, tier)
