"""Assembles captured stages and their programs into one plan: every operand becomes a range of a buffer.

Intermediates and scratch share buffers by their lifetimes over all stages in order, since stages never overlap. Weights
lie in shards. Tensors that the runtimes write or read, or that one stage passes to the next, have buffers of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...devices.program import Program, Shader
from ...devices.wgsl_bindings import binding_types
from ...support.errors import BundleError
from ...support.paths import cache_dir
from ...tuner.ir import Capture, Stage, TensorSpec
from ..format.plan import STAGES, BufferRange, Plan, PlanBuffer, PlanDispatch, PlanShader, aligned
from ..memory.buffer_sharing import Lifetime, MemoryPlan, assign_storages
from ..memory.call_order import order_calls
from .glue import ENTRY, THREADS, glue_grid, glue_source
from .weights import ShardLayout


@dataclass(frozen=True)
class PipelineTensors:
    """The inputs and outputs of the networks, found by name in the capture."""

    token_ids: TensorSpec
    text_embedding: TensorSpec
    unet_latents: TensorSpec
    timestep: TensorSpec
    context: TensorSpec
    noise: TensorSpec
    vae_latents: TensorSpec
    image: TensorSpec

    @property
    def latent(self) -> tuple[int, int, int]:
        """Return channels, height and width of one latent."""
        _, c, h, w = self.vae_latents.shape
        return (c, h, w)


def find_pipeline_tensors(capture: Capture) -> PipelineTensors:
    """Return the inputs and outputs of a Stable Diffusion pipeline's networks.

    Raises:
        BundleError: the capture is of another kind of pipeline, which the runtimes cannot run.
    """
    if set(capture.stages) != {"clip", "unet", "vae"}:
        raise BundleError(
            f"{capture.model} has the stages {', '.join(capture.stages)}; a bundle runs clip, unet and vae",
            "only pipelines like Stable Diffusion 1 and 2 can be built; SDXL's second text encoder cannot yet",
        )
    clip, unet, vae = (capture.stages[name] for name in ("clip", "unet", "vae"))
    for stage, inputs in ((clip, {"token_ids"}), (unet, {"latents", "timestep", "context"}), (vae, {"latents"})):
        names = {spec.name for spec in stage.inputs}
        if names != inputs:
            raise BundleError(
                f"the {stage.name} of {capture.model} takes {', '.join(sorted(names))}; "
                f"a bundle gives it {', '.join(sorted(inputs))}",
                "only text-to-image pipelines like Stable Diffusion 1 and 2 can be built",
            )
    found = PipelineTensors(
        token_ids=_named(clip.inputs, "token_ids"),
        text_embedding=_named(clip.outputs, "text_embedding"),
        unet_latents=_named(unet.inputs, "latents"),
        timestep=_named(unet.inputs, "timestep"),
        context=_named(unet.inputs, "context"),
        noise=_named(unet.outputs, "noise"),
        vae_latents=_named(vae.inputs, "latents"),
        image=_named(vae.outputs, "image"),
    )
    copies = 2 if capture.options.guidance else 1
    latents = (copies * found.vae_latents.shape[0], *found.vae_latents.shape[1:])
    if found.unet_latents.shape != latents or found.noise.shape != latents:
        raise BundleError(
            f"the UNet of {capture.model} turns {found.unet_latents.shape} into {found.noise.shape}, the VAE takes "
            f"{found.vae_latents.shape}: the runtimes need the same channels throughout",
            "inpainting and learned-variance UNets cannot be built",
        )
    if found.image.shape[1] != 3:
        raise BundleError(
            f"the VAE of {capture.model} draws pictures of {found.image.shape[1]} channels; "
            "a page shows red, green and blue",
            "give a model whose vae/config.json has out_channels 3",
        )
    if found.context.shape != (latents[0], *found.text_embedding.shape[1:]):
        raise BundleError(
            f"the text encoder of {capture.model} gives {found.text_embedding.shape}, "
            f"its UNet takes {found.context.shape}"
        )
    return found


def _named(specs: list[TensorSpec], name: str) -> TensorSpec:
    for spec in specs:
        if spec.name == name:
            return spec
    captures = cache_dir() / "captures"
    raise BundleError(f"the capture has no tensor {name!r}", f"delete {captures} and build again")


class ShaderFiles:
    """The WGSL files of a bundle. Equal shaders are one file, also where several plans have them."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], str] = {}

    def file(self, name: str, shader: Shader) -> str:
        """Return the path of a shader, which is named after ``name`` where it is new."""
        key = (shader.entry, shader.source)
        if key not in self._files:
            stem = re.sub(r"[^A-Za-z0-9_]", "_", name)
            number = sum(1 for file in self._files.values() if re.fullmatch(rf"kernels/{stem}-\d+\.wgsl", file))
            self._files[key] = f"kernels/{stem}-{number}.wgsl"
        return self._files[key]


@dataclass
class Assembled:
    """A plan, its shaders' WGSL by path, and the buffers that intermediates share."""

    plan: Plan
    sources: dict[str, str]
    memory: MemoryPlan


@dataclass(frozen=True)
class _Shared:
    """``nbytes`` bytes at ``offset`` of a tensor that shares its buffer with others."""

    tensor: int
    offset: int
    nbytes: int


@dataclass
class _Tensor:
    label: str
    nbytes: int
    first: int = -1
    last: int = -1


@dataclass
class _Launch:
    label: str
    shader: int
    bindings: list[BufferRange | _Shared]
    grid: tuple[int, int, int]


def assemble(
    capture: Capture,
    tensors: PipelineTensors,
    programs: Mapping[str, Program],
    layout: ShardLayout,
    states: int,
    files: ShaderFiles,
) -> Assembled:
    """Assemble the plan of a pipeline.

    Args:
        capture: the pipeline's stages and kernels.
        tensors: the tensors between its networks, from `find_pipeline_tensors`.
        programs: each kernel's program, by kernel id.
        layout: where each weight and constant lies.
        states: latents that a sampler remembers at most.
        files: the shaders of the bundle's other plans, to which this one's are added.

    Raises:
        BundleError: a dispatch would bind one buffer both read-only and writable, or reads what nothing has written.
    """
    return _Assembler(capture, tensors, programs, layout, states, files).run()


@dataclass
class _Assembler:
    capture: Capture
    tensors: PipelineTensors
    programs: Mapping[str, Program]
    layout: ShardLayout
    states: int
    files: ShaderFiles
    plan: Plan = field(default_factory=lambda: Plan([], {}, [], {}))

    def __post_init__(self) -> None:
        self._sources: dict[str, str] = {}
        self._writable: list[list[bool]] = []
        self._shader_index: dict[tuple[str, str], int] = {}
        self._uniforms: dict[tuple[int, ...], BufferRange] = {}
        self._tensors: list[_Tensor] = []
        self._launches: dict[str, list[_Launch]] = {stage: [] for stage in STAGES}
        self._clock = 0

    def run(self) -> Assembled:
        io = self.tensors
        shards = [
            self._buffer(PlanBuffer(aligned(size), "storage", shard=ShardLayout.file(i)))
            for i, size in enumerate(self.layout.sizes)
        ]
        names = {
            "token_ids": self._storage(io.token_ids.nbytes),
            "text_embedding": self._storage(io.text_embedding.nbytes),
            "context": self._storage(io.context.nbytes),
            "state": self._storage((2 + self.states) * io.vae_latents.nbytes),
            "coefficients": self._storage(4 * self.states * (2 + self.states)),
            "step": self._whole(PlanBuffer(16, usage="uniform")),
            "timestep": self._storage(io.timestep.nbytes),
            "pixels": self._storage(io.image.nbytes // 3),
            "latents": self._storage(io.vae_latents.nbytes),
            "image": self._storage(io.image.nbytes),
        }
        self.plan.names = names
        unet_latents, noise = self._storage(io.unet_latents.nbytes), self._storage(io.noise.nbytes)
        by_spec = {
            id(io.token_ids): names["token_ids"],
            id(io.text_embedding): names["text_embedding"],
            id(io.unet_latents): unet_latents,
            id(io.timestep): names["timestep"],
            id(io.context): names["context"],
            id(io.noise): noise,
            id(io.vae_latents): names["latents"],
            id(io.image): names["image"],
        }
        latent_elements = io.vae_latents.nbytes // 4
        for stage in STAGES:
            if stage in self.capture.stages:
                self._network(self.capture.stages[stage], by_spec, shards)
            elif stage == "schedule":
                ranges = [names["state"], names["coefficients"], unet_latents, names["latents"], names["step"]]
                self._glue(stage, "schedule", ranges, latent_elements)
            elif stage == "guide":
                kind = "guide" if self.capture.options.guidance else "keep"
                self._glue(stage, kind, [noise, names["state"], names["step"]], latent_elements)
            else:
                _, _, height, width = io.image.shape
                ranges = [names["image"], names["pixels"], self._uniform((height * width,))]
                self._glue(stage, "image", ranges, names["pixels"].nbytes // 4)
        memory = self._place()
        self.plan.check()
        return Assembled(self.plan, self._sources, memory)

    def _network(self, stage: Stage, by_spec: Mapping[int, BufferRange], shards: list[int]) -> None:
        temps = [self._tensor(f"{stage.name} temp {i}", nbytes) for i, nbytes in enumerate(stage.temps)]
        for number, call in enumerate(order_calls(stage, self.capture.kernels)):
            kernel, program = self.capture.kernels[call.kernel], self.programs[call.kernel]
            label = f"call {number} of {stage.name} ({kernel.name})"
            args: list[BufferRange | _Shared] = []
            for operand in call.operands:
                if operand.space == "temp":
                    args.append(_Shared(temps[operand.index], operand.offset, operand.nbytes))
                    continue
                if operand.space in ("param", "constant"):
                    slot = self.layout.slot(stage, operand)
                    base = BufferRange(shards[slot.shard], slot.offset, slot.nbytes)
                else:
                    specs = stage.inputs if operand.space == "input" else stage.outputs
                    base = by_spec[id(specs[operand.index])]
                args.append(BufferRange(base.buffer, base.offset + operand.offset, -(-operand.nbytes // 4) * 4))
            scratch = [self._tensor(f"scratch {i} of {label}", nbytes) for i, nbytes in enumerate(program.scratch)]
            for dispatch in program.dispatches:
                shader = program.shaders[dispatch.shader]
                bindings: list[BufferRange | _Shared] = [
                    args[b.index] if b.kind == "arg" else _Shared(scratch[b.index], 0, program.scratch[b.index])
                    for b in dispatch.buffers
                ]
                if dispatch.uniform:
                    bindings.append(self._uniform(dispatch.uniform))
                index = self._shader(kernel.name, shader)
                self._launch(stage.name, _Launch(label, index, bindings, dispatch.grid))

    def _glue(self, stage: str, name: str, ranges: list[BufferRange], elements: int) -> None:
        shader = self._shader(name, Shader(ENTRY, glue_source(name), (THREADS, 1, 1)))
        self._launch(stage, _Launch(f"the glue stage {name}", shader, list(ranges), glue_grid(elements)))

    def _launch(self, stage: str, launch: _Launch) -> None:
        writable = self._writable[launch.shader]
        if len(writable) != len(launch.bindings):
            raise BundleError(f"{launch.label}: {len(launch.bindings)} buffers for {len(writable)} bindings")
        for place, written in zip(launch.bindings, writable, strict=True):
            if isinstance(place, _Shared):
                tensor = self._tensors[place.tensor]
                if tensor.first < 0:
                    if not written:
                        raise BundleError(f"{launch.label} reads {tensor.label} before anything wrote it")
                    tensor.first = self._clock
                tensor.last = self._clock
        self._clock += 1
        self._launches[stage].append(launch)

    def _shader(self, name: str, shader: Shader) -> int:
        key = (shader.entry, shader.source)
        if key not in self._shader_index:
            file = self.files.file(name, shader)
            self._sources[file] = shader.source
            self._writable.append([kind == "storage" for kind in binding_types(shader.source)])
            self._shader_index[key] = len(self.plan.shaders)
            self.plan.shaders.append(PlanShader(file, shader.entry))
        return self._shader_index[key]

    def _tensor(self, label: str, nbytes: int) -> int:
        self._tensors.append(_Tensor(label, nbytes))
        return len(self._tensors) - 1

    def _buffer(self, buffer: PlanBuffer) -> int:
        self.plan.buffers.append(buffer)
        return len(self.plan.buffers) - 1

    def _whole(self, buffer: PlanBuffer) -> BufferRange:
        return BufferRange(self._buffer(buffer), 0, buffer.nbytes)

    def _storage(self, nbytes: int) -> BufferRange:
        return BufferRange(self._buffer(PlanBuffer(aligned(nbytes), "storage")), 0, -(-nbytes // 4) * 4)

    def _uniform(self, words: tuple[int, ...]) -> BufferRange:
        if words not in self._uniforms:
            size = 16 * math.ceil(len(words) / 4)
            self._uniforms[words] = self._whole(PlanBuffer(size, usage="uniform", words=words))
        return self._uniforms[words]

    def _place(self) -> MemoryPlan:
        """Assign buffers to the shared tensors, and add the dispatches to the plan."""
        alive = [i for i, tensor in enumerate(self._tensors) if tensor.first >= 0]
        number = {tensor: place for place, tensor in enumerate(alive)}
        apart: dict[int, set[int]] = {}
        for launch in (one for launches in self._launches.values() for one in launches):
            bound: tuple[set[int], set[int]] = (set(), set())
            for place, written in zip(launch.bindings, self._writable[launch.shader], strict=True):
                if isinstance(place, _Shared):
                    bound[written].add(number[place.tensor])
            for tensor in bound[True]:
                apart.setdefault(tensor, set()).update(bound[False])
        memory = assign_storages(
            [Lifetime(self._tensors[i].nbytes, self._tensors[i].first, self._tensors[i].last) for i in alive], apart
        )
        buffers = [self._buffer(PlanBuffer(size, "storage")) for size in memory.storages]

        def range_of(place: BufferRange | _Shared) -> BufferRange:
            if isinstance(place, BufferRange):
                return place
            storage, start = memory.places[number[place.tensor]]
            return BufferRange(buffers[storage], start + place.offset, -(-place.nbytes // 4) * 4)

        for stage, launches in self._launches.items():
            self.plan.stages[stage] = []
            for launch in launches:
                ranges = tuple(map(range_of, launch.bindings))
                self._check_aliasing(launch, ranges)
                self.plan.stages[stage].append(PlanDispatch(launch.shader, ranges, launch.grid))
        return memory

    def _check_aliasing(self, launch: _Launch, ranges: tuple[BufferRange, ...]) -> None:
        """Raise BundleError where one buffer is bound read-only and writable, or writable ranges overlap."""
        bound = list(zip(ranges, self._writable[launch.shader], strict=True))
        for i, (place, written) in enumerate(bound):
            for other, other_written in bound[:i]:
                if place.buffer != other.buffer or not (written or other_written):
                    continue
                apart = place.offset + place.nbytes <= other.offset or other.offset + other.nbytes <= place.offset
                if written != other_written or not apart:
                    raise BundleError(
                        f"{launch.label} binds one buffer twice, at least once to write, which WebGPU refuses"
                    )
