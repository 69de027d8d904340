"""One stage from PyTorch to kernels: export on the meta device, TVM's importer, and lowering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import tvm
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from ...support.enums import ComputePrecision
from ...support.errors import CaptureError, first_line
from ..ir import CaptureOptions, Kernel, Stage
from .channel_split import split_channels
from .lowering import lower
from .networks import Network, build_network
from .relax_values import UnsupportedOperator
from .rewrites import rewrite
from .sources import ModelSource, canonical_weight_name
from .torch_ops import make_converters, unsupported


def import_stage(source: ModelSource, options: CaptureOptions, stage: str) -> tuple[Stage, dict[str, Kernel]]:
    """Capture one stage; raises CaptureError naming the stage, and the operator where one is the cause."""
    network = build_network(source, options, stage)
    exported = _export(network, stage)
    importer = _Importer(stage)
    module = importer.from_exported_program(exported, True, True, False, make_converters(options))
    # Assertions on dtypes are dropped only now, and with them what they alone use.
    module = relax.transform.DeadCodeElimination(["main"])(module)
    main = _without_unused_weights(module["main"].without_attr("params"))
    module = tvm.IRModule({**dict(module.functions.items()), module.get_global_var("main"): main})
    targets = {spec.arg.name: spec.target for spec in exported.graph_signature.input_specs}
    weights = [_checkpoint_name(stage, network, targets[param.name]) for param in main.params[len(network.inputs) :]]
    module = split_channels(module, options.max_binding)
    module = rewrite(module, options.max_binding)
    names = [spec.name for spec in network.inputs]
    return lower(stage, module, names, network.outputs, weights, options.weights, _compute(source, options, stage))


def _compute(source: ModelSource, options: CaptureOptions, stage: str) -> ComputePrecision:
    """Return the precision between the kernels of a stage: diffusers runs the decoder of SDXL in float32.

    Its activations exceed half floats, unless its configuration says that its weights are made for them.
    """
    if stage == "vae" and "clip2" in source.configs and source.configs["vae"].get("force_upcast", True):
        return ComputePrecision.F32
    return options.compute


def _without_unused_weights(main: relax.Function) -> relax.Function:
    """Return ``main`` without the weights that it does not use, such as those of a VAE's encoder."""
    count = int(main.attrs["num_input"])
    used = set(relax.analysis.free_vars(main.body))
    params = [*main.params[:count], *(param for param in main.params[count:] if param in used)]
    return relax.Function(params, main.body, main.ret_ty, main.is_pure, main.attrs)


def _export(network: Network, stage: str) -> torch.export.ExportedProgram:
    try:
        with torch.no_grad():
            exported = torch.export.export(network.module, network.example_inputs(), strict=False)
    except Exception as error:  # torch.export raises any error of the network's code
        raise CaptureError(
            f"the stage {stage} cannot be exported: {first_line(error)}", "check the model's configuration"
        ) from error
    # An unused branch (CLIP's pooling) may hold operators that the importer does not know.
    exported.graph.eliminate_dead_code()
    exported.graph_module.recompile()
    _fill_buffers(exported, stage)
    return exported


def _fill_buffers(exported: torch.export.ExportedProgram, stage: str) -> None:
    """Replace buffers on the meta device by the values that they have in all models of their kind."""
    for tensors in (exported.state_dict, exported.constants):
        for name, tensor in list(tensors.items()):
            if (
                not isinstance(tensor, torch.Tensor)
                or isinstance(tensor, torch.nn.Parameter)
                or tensor.device.type != "meta"
            ):
                continue
            if name.endswith("position_ids"):
                positions = torch.arange(tensor.shape[-1], dtype=tensor.dtype)
                tensors[name] = positions.expand(tensor.shape).contiguous()
            elif name.endswith("token_type_ids"):
                tensors[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
            else:
                raise CaptureError(
                    f"the stage {stage} has a buffer {name} whose values are not known without its weights"
                )


def _checkpoint_name(stage: str, network: Network, target: str) -> str:
    return canonical_weight_name(stage, target.removeprefix(network.prefix))


class _Importer(ExportedProgramImporter):
    """TVM's importer, extended: parameters have no data, and errors name the operator."""

    convert_map: dict[str, Any]

    def __init__(self, stage: str) -> None:
        super().__init__()
        self._stage = stage
        self.stock = dict(self.convert_map)
        """TVM's own converters, which some of ours call outside their special cases."""

    @staticmethod
    def _convert_pytorch_tensor_to_tvm(tensor_value: torch.Tensor) -> tvm.runtime.Tensor:
        if tensor_value.device.type == "meta":
            # Only fills an attribute that is dropped: the values come with the weights, in `transform_weights`.
            return tvm.runtime.empty((0,), str(tensor_value.dtype).removeprefix("torch."))
        return ExportedProgramImporter._convert_pytorch_tensor_to_tvm(tensor_value)

    def _check_unsupported_func_type(self, nodes: Any) -> None:
        calls = [node.target.__name__ for node in nodes if node.op == "call_function"]
        missing = sorted({name for name in calls if name not in self.convert_map})
        if missing:
            raise unsupported(self._stage, missing)
        self.convert_map = {name: self._named(name, convert) for name, convert in self.convert_map.items()}

    def _named(self, name: str, convert: Callable[..., relax.Expr]) -> Callable[..., relax.Expr]:
        def converted(*arguments: Any) -> relax.Expr:
            try:
                return convert(*arguments)
            except CaptureError:
                raise
            except UnsupportedOperator as error:
                raise unsupported(self._stage, [str(error)]) from error
            except Exception as error:  # the importer's own errors do not name the operator
                raise unsupported(self._stage, [f"{name} ({type(error).__name__}: {error})"]) from error

        return converted
