"""Sources of a model: a diffusers folder, a Hugging Face id or a built-in configuration.

A `ModelSource` holds the configuration of each stage. Weights are read only on request, so that a model can be captured
and tuned from its configuration alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...support.errors import CaptureError, first_line
from .model_files.git_lfs import check_not_pointer
from .model_files.lora import Lora, parse_spec, read_lora
from .model_files.pipeline_parts import check_architecture, left_out
from .model_files.single_file import PICKLES, convert_stage, find_kind
from .model_files.textual_inversion import WithWords, Word, read_word
from .weights.checkpoint import Checkpoint, choose_files

if TYPE_CHECKING:
    import torch

COMPONENTS = {"clip": "text_encoder", "clip2": "text_encoder_2", "unet": "unet", "vae": "vae"}
"""The folder of each stage in a diffusers pipeline, in order of execution."""

_CONFIG_PATTERNS = ["model_index.json", "*/*.json", "*/*.txt", "*/*.model"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Padding:
    """How a prompt is padded: with the token ``pad``, which is also the end marker where ``ends``."""

    pad: int
    ends: bool


@dataclass(frozen=True)
class ModelSource:
    """A model to capture.

    ``configs`` maps a stage (``clip``, ``clip2``, ``unet``, ``vae``) to its component's configuration, in order of
    execution; ``scheduler`` is the sampler's, empty where there is none. ``folder`` is the pipeline's folder, None for
    a built-in configuration. ``repo_id`` is set where weights can be downloaded from the Hugging Face hub.
    ``token_length`` is the number of tokens in a prompt. ``padding`` is that of prompts where the text encoder masks
    it, else None. ``left_out`` are the pipeline's parts that are not captured, each with its class. ``file`` holds all
    weights of a model in one file, None where each stage has its own. ``words`` are textual inversions, whose vectors
    follow the rows of the text encoder's embedding.
    """

    name: str
    folder: Path | None
    configs: dict[str, dict[str, Any]]
    scheduler: dict[str, Any] = field(default_factory=dict)
    token_length: int = 77
    repo_id: str = ""
    padding: Padding | None = None
    left_out: tuple[str, ...] = ()
    file: Path | None = None
    words: tuple[Word, ...] = field(default=(), compare=False)

    @property
    def has_weights(self) -> bool:
        """Whether the weights of every stage are in the folder, or can be downloaded."""
        return bool(self.repo_id or self.file) or all(self._weight_files(stage) for stage in self.configs)

    def select_stages(self, wanted: Sequence[str] | None) -> list[str]:
        """Return the stages named, or all for None, in order of execution; raises CaptureError for an unknown one."""
        unknown = sorted(set(wanted or ()) - set(self.configs))
        if unknown:
            raise CaptureError(
                f"{self.name} has no stage {', '.join(unknown)}", f"its stages: {', '.join(self.configs)}"
            )
        return [stage for stage in self.configs if wanted is None or stage in wanted]

    def load_weights(self, stage: str) -> Mapping[str, torch.Tensor]:
        """Return the tensors of ``stage`` by canonical name (see `canonical_weight_name`); they are read on access.

        Raises:
            CaptureError: the stage or its files are missing, or a file cannot be read.
        """
        if stage not in self.configs:
            raise CaptureError(f"{self.name} has no stage {stage!r}", f"its stages: {', '.join(self.configs)}")
        weights = self._load(stage)
        return WithWords(weights, self.words) if self.words and stage == "clip" else weights

    def _load(self, stage: str) -> Mapping[str, torch.Tensor]:
        if self.file is not None:
            converted = convert_stage(self.file, stage, self.configs[stage])
            return {canonical_weight_name(stage, name): tensor for name, tensor in converted.items()}
        files = self._weight_files(stage)
        if not files and self.repo_id:
            self._download_weights(stage)
            files = self._weight_files(stage)
        if not files:
            where = self.folder / COMPONENTS[stage] if self.folder else f"the built-in configuration {self.name!r}"
            raise CaptureError(f"there are no weights for {stage} in {where}", "give a diffusers folder with weights")
        return Checkpoint(files, lambda name: canonical_weight_name(stage, name))

    def _weight_files(self, stage: str) -> list[Path]:
        if self.folder is None:
            return []
        folder = self.folder / COMPONENTS[stage]
        if not folder.is_dir():
            return []
        present = {path.name for path in folder.iterdir()}
        return [folder / name for name in choose_files(present, lambda index: _read_json(folder / index))]

    def _download_weights(self, stage: str) -> None:
        import huggingface_hub

        component = COMPONENTS[stage]
        try:
            names = huggingface_hub.list_repo_files(self.repo_id)
            present = {name.split("/", 1)[1] for name in names if name.startswith(f"{component}/")}

            def read_index(index: str) -> dict[str, Any]:
                return _read_json(Path(huggingface_hub.hf_hub_download(self.repo_id, f"{component}/{index}")))

            wanted = choose_files(present, read_index)
            for name in wanted:
                huggingface_hub.hf_hub_download(self.repo_id, f"{component}/{name}")
        except (OSError, huggingface_hub.errors.HfHubHTTPError) as error:
            raise CaptureError(
                f"cannot download the weights of {stage} of {self.repo_id}: {error}",
                "check the network, or give a local diffusers folder",
            ) from error


def resolve_model(name: str, config: str | None = None) -> ModelSource:
    """Return the model of a folder, a file, a built-in name or a Hugging Face id, tried in this order.

    Args:
        name: what names the model.
        config: for a file, the diffusers folder or Hugging Face id of its configuration and tokenizer. By default the
            configuration on the hub of the file's kind, or where the hub is out of reach the built-in one.

    Raises:
        CaptureError: none of them exists, or a configuration cannot be read; the file can run code or is of another
            architecture; a configuration is given for what is no file.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return _from_file(path, config)
    if config is not None:
        raise CaptureError(f"{name} is no file, and has its own configuration", "leave out --config")
    if path.suffix in (*PICKLES, ".safetensors"):
        raise CaptureError(f"there is no file {path}", "check the path")
    if path.is_dir():
        return _from_folder(path.resolve().name, path)
    if name in builtin_names():
        text = resources.files(__package__).joinpath("configs", f"{name}.json").read_text(encoding="utf-8")
        data = json.loads(text)
        return ModelSource(
            name=name,
            folder=None,
            configs={stage: data[stage] for stage in COMPONENTS if stage in data},
            scheduler=data["scheduler"],
            token_length=data["token_length"],
        )
    if _HUB_ID.fullmatch(name):
        return _from_hub(name)
    raise CaptureError(
        f"there is no model {name!r}: no such folder, and no built-in configuration of that name",
        f"give a diffusers folder, a Hugging Face id (owner/name), or one of: {', '.join(builtin_names())}",
    )


def with_words(source: ModelSource, paths: Sequence[str]) -> ModelSource:
    """Return ``source`` with the textual inversions in ``paths``; its embedding has their vectors as further rows.

    Raises:
        CaptureError: see `read_word`; or the model has not one text encoder of CLIP's.
    """
    if not paths:
        return source
    clip = source.configs.get("clip", {})
    if "clip2" in source.configs or "CLIPTextModel" not in (clip.get("architectures") or ["CLIPTextModel"]):
        raise CaptureError(f"{source.name} takes no textual inversion", "models with one CLIP text encoder do")
    words = tuple(read_word(Path(path).expanduser(), int(clip["hidden_size"])) for path in paths)
    tokens = [word.token for word in words]
    if len(set(tokens)) < len(tokens):
        raise CaptureError(f"two textual inversions are the same word: {', '.join(tokens)}", "rename one of the files")
    grown = {**clip, "vocab_size": int(clip["vocab_size"]) + sum(len(word.vectors) for word in words)}
    return replace(source, configs={**source.configs, "clip": grown}, words=words)


def read_loras(source: ModelSource, specs: Sequence[str]) -> list[Lora]:
    """Return the LoRAs that ``specs``, each ``FILE[:SCALE]``, name for ``source``; raises as `read_lora` does."""
    parsed = [parse_spec(spec) for spec in specs]
    unet = source.configs.get("unet", {})
    return [read_lora(path, scale, unet, "clip2" in source.configs, canonical_weight_name) for path, scale in parsed]


def builtin_names() -> list[str]:
    """Return the names of the configurations that come with wgtune."""
    folder = resources.files(__package__).joinpath("configs")
    return sorted(entry.name[: -len(".json")] for entry in folder.iterdir() if entry.name.endswith(".json"))


def canonical_weight_name(stage: str, name: str) -> str:
    """Return a tensor's name independent of the library version that wrote the checkpoint.

    Names in text encoders lose the prefix of the inner model (transformers 5 dropped CLIP's ``text_model.``; BERT is
    published with and without ``bert.``), and those of layer norms take their present form. The decoder's attention
    has the names that diffusers uses since 0.18.
    """
    if stage.startswith("clip"):
        name = re.sub(r"^(text_model|bert|roberta)\.", "", name)
        return re.sub(r"\bLayerNorm\.(gamma|beta)$", lambda m: f"LayerNorm.{_NORM_NAMES[m[1]]}", name)
    if stage == "vae":
        return re.sub(
            r"(\.attentions\.\d+)\.(query|key|value|proj_attn)\.", lambda m: f"{m[1]}.{_ATTENTION_NAMES[m[2]]}.", name
        )
    return name


_NORM_NAMES = {"gamma": "weight", "beta": "bias"}
_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _from_file(path: Path, config: str | None) -> ModelSource:
    kind = find_kind(path)
    if config is not None:
        source = resolve_model(config)
    else:
        try:
            source = _from_hub(kind.repo_id)
        except CaptureError as error:
            if not kind.builtin:
                raise CaptureError(
                    f"{path} needs the configuration {kind.repo_id}: {error.message}",
                    "give a diffusers folder with it with --config",
                ) from error
            source = resolve_model(kind.builtin)
    return replace(source, name=path.stem, file=path, repo_id="")


def _from_folder(name: str, folder: Path, repo_id: str = "") -> ModelSource:
    index = _read_json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}
    check_architecture(name, index)
    configs = {}
    for stage, component in COMPONENTS.items():
        path = folder / component / "config.json"
        if path.is_file():
            configs[stage] = _read_json(path)
    if not configs:
        raise CaptureError(
            f"{folder} is no diffusers pipeline: none of {', '.join(COMPONENTS.values())} has a config.json",
            "give the folder that holds model_index.json",
        )
    scheduler = folder / "scheduler" / "scheduler_config.json"
    return ModelSource(
        name=name,
        folder=folder,
        configs=configs,
        scheduler=_read_json(scheduler) if scheduler.is_file() else {},
        token_length=_token_length(folder, configs),
        repo_id=repo_id,
        padding=_padding(folder / "tokenizer") if _masks_padding(configs) else None,
        left_out=tuple(left_out(index)),
    )


def _masks_padding(configs: dict[str, dict[str, Any]]) -> bool:
    # diffusers' pipeline of two text encoders does not look at the setting.
    return "clip2" not in configs and bool(configs.get("clip", {}).get("use_attention_mask"))


def _padding(folder: Path) -> Padding:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise CaptureError(
            f"the text encoder masks padding, and the tokenizer in {folder} cannot be read: {first_line(error)}",
            "give a diffusers folder with its tokenizer",
        ) from error
    ends = (tokenizer.eos_token_id, tokenizer.sep_token_id)
    if tokenizer.pad_token_id is None:
        raise CaptureError(f"the tokenizer in {folder} names no padding token, and the text encoder masks padding")
    return Padding(int(tokenizer.pad_token_id), tokenizer.pad_token_id in ends)


def _from_hub(repo_id: str) -> ModelSource:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        # Alone at first: of another architecture nothing more is downloaded.
        try:
            check_architecture(repo_id, _read_json(Path(huggingface_hub.hf_hub_download(repo_id, "model_index.json"))))
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):
                raise
        folder = huggingface_hub.snapshot_download(repo_id, allow_patterns=_CONFIG_PATTERNS)
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
        raise CaptureError(
            f"cannot get {repo_id} from the Hugging Face hub: {first_line(error)}",
            f"check the name and the network, or give a local diffusers folder or one of: {', '.join(builtin_names())}",
        ) from error
    return _from_folder(repo_id.split("/")[-1], Path(folder), repo_id)


def _token_length(folder: Path, configs: dict[str, dict[str, Any]]) -> int:
    """Return the length to which diffusers pads a prompt: the tokenizer's, at most the text encoder's positions."""
    positions = int(configs.get("clip", configs.get("clip2", {})).get("max_position_embeddings", 77))
    for tokenizer in ("tokenizer", "tokenizer_2"):
        path = folder / tokenizer / "tokenizer_config.json"
        if path.is_file():
            return min(int(_read_json(path).get("model_max_length", positions)), positions)
    return min(positions, 77)


def _read_json(path: Path) -> dict[str, Any]:
    check_not_pointer(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CaptureError(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict):
        raise CaptureError(f"{path} does not hold a JSON object")
    return data
