"""What people's folders hold that is not what wgtune captures: told by name, before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_networks import BERT, TEXT, UNET, assert_equals_pytorch, source_of

from wgtune.support.errors import CaptureError, UsageError
from wgtune.tuner.capture.model_capture import capture_model
from wgtune.tuner.capture.model_files.git_lfs import check_not_pointer
from wgtune.tuner.capture.model_files.lora import Merged, parse_spec
from wgtune.tuner.capture.model_files.pipeline_parts import check_architecture, left_out
from wgtune.tuner.capture.model_files.textual_inversion import EMBEDDING, WithWords
from wgtune.tuner.capture.networks import build_network
from wgtune.tuner.capture.sources import ModelSource, Padding, read_loras, resolve_model, with_words
from wgtune.tuner.capture.weights.checkpoint import Checkpoint
from wgtune.tuner.capture.weights.transform import check_weights
from wgtune.tuner.ir import CaptureOptions

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
SD = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.35.0",
    "requires_safety_checker": False,
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "safety_checker": [None, None],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
}
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "SD 3": (
        {
            "_class_name": "StableDiffusion3Pipeline",
            "transformer": ["diffusers", "SD3Transformer2DModel"],
            "text_encoder_3": ["transformers", "T5EncoderModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        r"StableDiffusion3Pipeline, another architecture.*transformer \(SD3Transformer2DModel\)",
    ),
    "Flux": (
        {
            "_class_name": "FluxPipeline",
            "transformer": ["diffusers", "FluxTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        r"FluxPipeline, another architecture",
    ),
    "PixArt": (
        {"_class_name": "PixArtAlphaPipeline", "transformer": ["diffusers", "Transformer2DModel"]},
        "PixArtAlphaPipeline, another",
    ),
    "Würstchen": (
        {
            "_class_name": "WuerstchenDecoderPipeline",
            "decoder": ["wuerstchen", "WuerstchenDiffNeXt"],
            "vqgan": ["wuerstchen", "PaellaVQModel"],
        },
        r"decoder \(WuerstchenDiffNeXt\), vqgan",
    ),
    "Kandinsky": (
        {
            "_class_name": "KandinskyV22Pipeline",
            "unet": ["diffusers", "UNet2DConditionModel"],
            "movq": ["diffusers", "VQModel"],
        },
        r"KandinskyV22Pipeline, another architecture: it has movq \(VQModel\)",
    ),
    "IF": ({"_class_name": "IFPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}, "IFPipeline.*no vae"),
    "video": ({**SD, "unet": ["diffusers", "UNet3DConditionModel"]}, r"unet \(UNet3DConditionModel\)"),
    "ControlNet": (
        {
            **SD,
            "_class_name": "StableDiffusionControlNetPipeline",
            "controlnet": ["diffusers", "ControlNetModel"],
        },
        r"with controlnet \(ControlNetModel\), which wgtune does not run",
    ),
}


@pytest.mark.parametrize(("index", "said"), OTHERS.values(), ids=OTHERS)
def test_another_architecture_is_refused_by_name(tmp_path: Path, index: dict[str, Any], said: str) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(CaptureError, match=said) as error:
        resolve_model(str(tmp_path))
    assert "SDXL" in error.value.hint


def test_another_architecture_on_the_hub_is_refused_before_its_files_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    (tmp_path / "model_index.json").write_text(json.dumps(OTHERS["Flux"][0]))
    fetched: list[str] = []

    def download(repo: str, name: str) -> str:
        fetched.append(name)
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("it downloads"))
    with pytest.raises(CaptureError, match="owner/flux is a FluxPipeline"):
        resolve_model("owner/flux")
    assert fetched == ["model_index.json"]


def test_parts_that_a_bundle_leaves_out_are_named() -> None:
    check_architecture("mine", SD)
    assert left_out(SD) == ["feature_extractor (CLIPImageProcessor)"]
    with_checker = {**SD, "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    assert left_out(with_checker)[0] == "safety_checker (StableDiffusionSafetyChecker)"
    check_architecture("mine", {})


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.bin",
    ],
)
def test_every_file_that_is_a_pointer_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps(UNET))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(CaptureError, match=rf"{Path(name).name} is a Git LFS pointer") as error:
        resolve_model(str(tmp_path)).load_weights("unet")
    assert "git lfs pull" in error.value.hint


def test_a_tokenizer_that_is_a_pointer_is_named(tmp_path: Path) -> None:
    from wgtune.build.bundle.tokenizer import tokenizer_files

    (tmp_path / "merges.txt").write_text(POINTER)
    with pytest.raises(CaptureError, match=r"merges\.txt is a Git LFS pointer"):
        tokenizer_files(tmp_path, 77)


def test_a_small_file_is_no_pointer(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("{}")
    check_not_pointer(tmp_path / "a")
    check_not_pointer(tmp_path / "missing")
    check_not_pointer(tmp_path)


def test_an_adapter_that_is_not_merged_is_refused_with_how_to_merge_it(tmp_path: Path) -> None:
    source = source_of(clip=TEXT)
    stage = capture_model(source, CaptureOptions(), ["clip"]).stages["clip"]
    network = build_network(source, CaptureOptions(), "clip", device="cpu")
    weights = {}
    for name, value in network.module.network.state_dict().items():
        stem, _, last = name.rpartition(".")
        projection = stem.endswith("q_proj")
        weights[f"{stem}.base_layer.{last}" if projection else name] = value.contiguous()
        if projection and last == "weight":
            weights[f"{stem}.lora_A.default.weight"] = torch.zeros(2, value.shape[1])
            weights[f"{stem}.lora_B.default.weight"] = torch.zeros(value.shape[0], 2)
    save_file(weights, tmp_path / "wrapped.safetensors")
    with pytest.raises(CaptureError, match=r"an adapter .* not merged") as error:
        check_weights(stage, Checkpoint([tmp_path / "wrapped.safetensors"]))
    assert "fuse_lora" in error.value.hint
    few = {"embeddings.token_embedding.weight": torch.zeros(100, 16)}
    with pytest.raises(CaptureError, match=r"lacks \S+, \S+ and \d+ more$"):
        check_weights(stage, few)


@pytest.mark.parametrize(
    ("config", "pad", "ends", "prompt", "seen"),
    [
        (TEXT, 99, True, [98, 3, 4, 99, 99, 99, 99, 99, 99, 99, 99], 4),
        (TEXT, 99, True, [98, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99], 2),
        (TEXT, 99, True, [98, 3, 99, 4, 99, 99, 99, 99, 99, 99, 99], 5),
        (TEXT, 99, True, [98, 1, 2, 3, 4, 5, 6, 7, 8, 9, 99], 11),
        (TEXT, 0, False, [98, 3, 0, 99, 0, 0, 0, 0, 0, 0, 0], 4),
        (BERT, 0, False, [98, 3, 99, 0, 0, 0, 0, 0, 0, 0, 0], 3),
    ],
    ids=["padded", "empty", "marker within", "full", "! padding", "BERT"],
)
def test_an_encoder_that_masks_padding_gives_what_transformers_gives_with_the_tokenizers_mask(
    config: dict[str, Any], pad: int, ends: bool, prompt: list[int], seen: int
) -> None:
    source = ModelSource("tiny", None, {"clip": config}, token_length=11, padding=Padding(pad, ends))
    network = build_network(source, CaptureOptions(), "clip", device="cpu")
    ids = torch.tensor([prompt])
    mask = (torch.arange(11) < seen).long()[None]
    with torch.no_grad():
        for parameter in network.module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        got = network.module(ids.int())
        expected = network.module.network(ids, attention_mask=mask)[0]
        plain = network.module.network(ids)[0]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert seen == 11 or not torch.allclose(got, plain, atol=1e-3)


@pytest.mark.parametrize(("config", "pad", "ends"), [(TEXT, 4, True), (BERT, 0, False)], ids=["CLIP", "BERT"])
def test_the_mask_is_part_of_the_captured_stage(config: dict[str, Any], pad: int, ends: bool) -> None:
    assert_equals_pytorch(
        ModelSource("tiny", None, {"clip": config}, token_length=11, padding=Padding(pad, ends)), "clip"
    )


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin"])
def test_a_file_that_can_run_code_is_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not even read")
    with pytest.raises(CaptureError, match="can run code") as error:
        resolve_model(str(tmp_path / name))
    assert "from_single_file" in error.value.hint


def test_files_that_are_no_whole_model_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(CaptureError, match="there is no file"):
        resolve_model(str(path))
    path.write_text(POINTER)
    with pytest.raises(CaptureError, match="Git LFS pointer"):
        resolve_model(str(path))
    path.write_text("nonsense")
    with pytest.raises(CaptureError, match="cannot read"):
        resolve_model(str(path))
    for name, said in (
        ("lora_unet_x.lora_down.weight", "is a LoRA"),
        ("model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale", "flux.*another architecture"),
        ("something", "no whole checkpoint"),
    ):
        save_file({name: torch.zeros(4, 4)}, path)
        with pytest.raises(CaptureError, match=said):
            resolve_model(str(path))
    with pytest.raises(CaptureError, match="has its own configuration"):
        resolve_model("sd-v1-5", "sdxl")


def test_a_file_out_of_the_hubs_reach_has_the_built_in_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def offline(*args: object, **kwargs: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    first = "model.diffusion_model.input_blocks.0.0.weight"
    path = tmp_path / "mine.safetensors"
    save_file({first: torch.zeros(320, 4, 3, 3)}, path)
    source = resolve_model(str(path))
    assert (source.name, source.has_weights) == ("mine", True)
    assert source.configs == resolve_model("sd-v1-5").configs
    xl = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
    save_file({first: torch.zeros(320, 4, 3, 3), xl: torch.zeros(1280)}, path)
    assert resolve_model(str(path)).configs == resolve_model("sdxl").configs


def kohya(names: list[str], rank: int, alpha: float | None, *shape: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    tensors = {}
    for name in names:
        tensors |= {
            f"{name}.lora_down.weight": torch.randn(rank, shape[1]),
            f"{name}.lora_up.weight": torch.randn(shape[0], rank),
        }
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


QUERY = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


def test_several_loras_add_up_by_scale_and_alpha(tmp_path: Path) -> None:
    torch.manual_seed(2)
    weights = {f"{QUERY}.weight": torch.randn(16, 16).half(), "conv_in.bias": torch.ones(3)}
    expected = weights[f"{QUERY}.weight"].float()
    specs = []
    for number, (scale, alpha) in enumerate(((0.5, 1.0), (-2.0, None))):
        tensors = kohya([f"lora_unet_{QUERY.replace('.', '_')}"], 4, alpha, 16, 16)
        down, up, *_ = tensors.values()
        expected = expected + scale * (1.0 if alpha is None else alpha / 4) * (up @ down)
        save_file(tensors, tmp_path / f"{number}.safetensors")
        specs.append(f"{tmp_path / str(number)}.safetensors:{scale}")
    loras = read_loras(source_of(unet=UNET), specs)
    merged = Merged(weights, loras, "unet")
    torch.testing.assert_close(merged[f"{QUERY}.weight"], expected)
    assert torch.equal(merged["conv_in.bias"], torch.ones(3)) and list(merged) == list(weights)
    with pytest.raises(CaptureError, match=r"by \(16, 16\), the weight is \(8, 8\)"):
        Merged({f"{QUERY}.weight": torch.zeros(8, 8)}, loras, "unet")[f"{QUERY}.weight"]


def test_alphas_that_peft_writes_into_a_files_metadata_count(tmp_path: Path) -> None:
    other = QUERY.replace("to_q", "to_k")
    tensors = {}
    for name in (QUERY, other):
        tensors |= {f"unet.{name}.lora_A.weight": torch.ones(2, 16), f"unet.{name}.lora_B.weight": torch.ones(16, 2)}
    said = {"unet.r": 2, "unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_k": 1}}
    save_file(tensors, tmp_path / "a.safetensors", {"lora_adapter_metadata": json.dumps(said), "format": "pt"})
    (lora,) = read_loras(source_of(unet=UNET), [str(tmp_path / "a.safetensors")])
    assert lora.scale == 1.0
    layers = lora.layers["unet"]
    assert (layers[f"{QUERY}.weight"].factor, layers[f"{other}.weight"].factor) == (4.0, 0.5)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"conv_in.weight": torch.ones(2)}, "holds no LoRA"),
        ({"lora_unet_x.hada_w1_a": torch.ones(2, 2)}, "LoHa"),
        ({"transformer.x.lora_A.weight": torch.ones(2, 2)}, "holds no LoRA of this kind"),
        ({"unet.x.lora_A.weight": torch.ones(2, 2)}, "more than pairs"),
        ({**kohya(["lora_unet_x"], 2, None, 4, 4), "lora_unet_x.lora_mid.weight": torch.ones(2, 2)}, "cannot read"),
    ],
)
def test_what_is_no_lora_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], said: str) -> None:
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(CaptureError, match=said):
        read_loras(source_of(unet=UNET), [str(tmp_path / "a.safetensors")])


def test_a_loras_scale_is_a_number(tmp_path: Path) -> None:
    assert parse_spec("style.safetensors:0.8") == (Path("style.safetensors"), 0.8)
    assert parse_spec("style.safetensors") == (Path("style.safetensors"), 1.0)
    assert parse_spec(r"C:\style.safetensors") == (Path(r"C:\style.safetensors"), 1.0)
    with pytest.raises(UsageError, match="scale nan"):
        parse_spec("style.safetensors:nan")
    with pytest.raises(CaptureError, match="there is no LoRA file"):
        read_loras(source_of(unet=UNET), [str(tmp_path / "missing.safetensors:2")])
    (tmp_path / "a.pt").write_bytes(b"")
    with pytest.raises(CaptureError, match="can run code"):
        read_loras(source_of(unet=UNET), [str(tmp_path / "a.pt")])


def test_words_follow_the_rows_of_the_embedding(tmp_path: Path) -> None:
    path = tmp_path / "word.safetensors"
    save_file({"<w>": torch.full((16,), 2.0)}, path)
    source = with_words(source_of(clip=TEXT), [str(path)])
    assert source.configs["clip"]["vocab_size"] == TEXT["vocab_size"] + 1
    rows = WithWords({EMBEDDING: torch.zeros(100, 16), "b": torch.ones(1)}, source.words)
    assert rows[EMBEDDING].shape == (101, 16) and float(rows[EMBEDDING][100].sum()) == 32
    save_file({"<w>": torch.ones(3, 16)}, path)
    assert with_words(source_of(clip=TEXT), [str(path)]).configs["clip"]["vocab_size"] == TEXT["vocab_size"] + 3
    assert list(rows) == [EMBEDDING, "b"] and float(rows["b"]) == 1
    assert with_words(source_of(clip=TEXT), []).configs["clip"] == TEXT
    for tensors, said in (
        ({"<w>": torch.ones(8)}, "vectors have 16 numbers"),
        ({"<w>": torch.ones(3, 2, 16)}, "vectors have 16 numbers"),
        ({"a": torch.ones(16), "b": torch.ones(16)}, "holds 2 tensors"),
    ):
        save_file(tensors, path)
        with pytest.raises(CaptureError, match=said):
            with_words(source_of(clip=TEXT), [str(path)])
    with pytest.raises(CaptureError, match="takes no textual inversion"):
        with_words(source_of(clip=TEXT, clip2=TEXT), [str(path)])
    save_file({"<w>": torch.ones(16)}, path)
    with pytest.raises(CaptureError, match="are the same word"):
        with_words(source_of(clip=TEXT), [str(path)] * 2)
    with pytest.raises(CaptureError, match="there is no textual inversion"):
        with_words(source_of(clip=TEXT), [str(tmp_path / "missing.safetensors")])
