"""Finding a model and reading its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wgtune.support.errors import CaptureError
from wgtune.tuner.capture.sources import builtin_names, canonical_weight_name, resolve_model
from wgtune.tuner.capture.weights import checkpoint


def make_folder(root: Path, **configs: dict) -> Path:
    for component, config in configs.items():
        (root / component).mkdir(parents=True)
        (root / component / "config.json").write_text(json.dumps(config))
    return root


@pytest.mark.parametrize("name", ["sd-v1-5", "sd-turbo", "sdxl", "taiyi"])
def test_builtin_configurations_have_every_stage_and_a_scheduler(name: str) -> None:
    source = resolve_model(name)
    assert {"clip", "unet", "vae"} <= set(source.configs)
    assert source.scheduler["_class_name"]
    assert not source.has_weights
    with pytest.raises(CaptureError, match="no weights for unet"):
        source.load_weights("unet")


def test_a_folder_may_hold_only_some_components(tmp_path: Path) -> None:
    source = resolve_model(str(make_folder(tmp_path / "mine", unet={"sample_size": 8})))
    assert source.name == "mine"
    assert source.configs == {"unet": {"sample_size": 8}}
    assert source.scheduler == {}
    assert not source.has_weights


def test_stages_are_in_order_of_execution(tmp_path: Path) -> None:
    source = resolve_model(str(make_folder(tmp_path, vae={}, unet={}, text_encoder_2={}, text_encoder={})))
    assert list(source.configs) == ["clip", "clip2", "unet", "vae"]


def test_a_folder_without_components_and_an_unknown_name_are_explained(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no diffusers pipeline") as folder:
        resolve_model(str(tmp_path))
    assert "model_index.json" in folder.value.hint
    with pytest.raises(CaptureError, match="no-such-model") as name:
        resolve_model("no-such-model")
    assert all(known in name.value.hint for known in builtin_names())


def test_a_broken_config_names_its_file(tmp_path: Path) -> None:
    make_folder(tmp_path, unet={})
    (tmp_path / "unet" / "config.json").write_text("{")
    with pytest.raises(CaptureError, match=r"unet/config\.json"):
        resolve_model(str(tmp_path))


def test_an_unreachable_hub_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*args: object, **kwargs: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(CaptureError, match="cannot get owner/model from the Hugging Face hub: no connection"):
        resolve_model("owner/model")


def test_a_hub_model_takes_its_configs_from_the_snapshot_and_its_weights_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    make_folder(tmp_path, unet={"sample_size": 8})
    fetched = []

    def download(repo: str, name: str) -> str:
        if name == "model_index.json":
            raise huggingface_hub.errors.EntryNotFoundError("this repository has none")
        fetched.append(name)
        save_file({"conv_in.weight": torch.ones(2)}, tmp_path / name)
        return str(tmp_path / name)

    offered = ["unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.safetensors", "README.md"]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repo: offered)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    source = resolve_model("owner/model")
    assert (source.name, source.has_weights, fetched) == ("model", True, [])
    assert list(source.load_weights("unet")) == ["conv_in.weight"]
    assert fetched == ["unet/diffusion_pytorch_model.safetensors"]


@pytest.mark.parametrize("limit, expected", [(77, 77), (512, 77), (1000000000000000019884624838656, 77)])
def test_a_prompt_is_as_long_as_the_tokenizer_pads_it_within_the_encoders_positions(
    tmp_path: Path, limit: int, expected: int
) -> None:
    make_folder(tmp_path, text_encoder={"max_position_embeddings": 77})
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}))
    assert resolve_model(str(tmp_path)).token_length == expected


def test_weights_are_read_from_safetensors_torch_files_halves_and_shards(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    whole = make_folder(tmp_path / "whole", unet={})
    save_file({"a": tensor}, whole / "unet" / "diffusion_pytorch_model.safetensors")
    save_file({"a": tensor.half() + 1}, whole / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    half = make_folder(tmp_path / "half", unet={})
    save_file({"a": tensor.half()}, half / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    torches = make_folder(tmp_path / "torch", unet={})
    torch.save({"a": tensor}, torches / "unet" / "diffusion_pytorch_model.bin")
    shards = make_folder(tmp_path / "shards", unet={})
    save_file({"a": tensor}, shards / "unet" / "part-1.safetensors")
    save_file({"b": tensor}, shards / "unet" / "part-2.safetensors")
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    (shards / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))

    halves = make_folder(tmp_path / "halves", unet={})
    parts = {n: f"diffusion_pytorch_model.fp16-0000{i}-of-00002.safetensors" for i, n in enumerate("ab", 1)}
    for name, part in parts.items():
        save_file({name: tensor.half()}, halves / "unet" / part)
    index_file = halves / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json"
    index_file.write_text(json.dumps({"weight_map": parts}))

    for folder, names in ((whole, ["a"]), (half, ["a"]), (torches, ["a"]), (shards, ["a", "b"]), (halves, ["a", "b"])):
        source = resolve_model(str(folder))
        assert source.has_weights
        weights = source.load_weights("unet")
        assert sorted(weights) == names
        assert all(torch.equal(value.float(), tensor) for value in weights.values())


def test_an_index_without_its_shards_leaves_the_half_precision_files(tmp_path: Path) -> None:
    # So it is where only the halves were downloaded, with all JSON files.
    unet = make_folder(tmp_path, unet={}) / "unet"
    full = {"weight_map": {"a": "diffusion_pytorch_model-00001-of-00001.safetensors"}}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(full))
    half = {"weight_map": {"a": "diffusion_pytorch_model.fp16-00001-of-00001.safetensors"}}
    (unet / "diffusion_pytorch_model.fp16.safetensors.index.json").write_text(json.dumps(half))
    save_file({"a": torch.ones(2).half()}, unet / half["weight_map"]["a"])
    source = resolve_model(str(tmp_path))
    assert source.has_weights
    assert source.load_weights("unet")["a"].dtype == torch.float16


def test_an_index_that_names_no_files_is_refused(tmp_path: Path) -> None:
    unet = make_folder(tmp_path, unet={}) / "unet"
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    for text in ("{", "{}", '{"weight_map": {"a": 1}}'):
        index.write_text(text)
        with pytest.raises(CaptureError, match=r"safetensors\.index\.json"):
            resolve_model(str(tmp_path)).load_weights("unet")


def test_a_checkpoint_larger_than_its_window_is_mapped_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {f"w{i}": torch.full((64,), float(i)) for i in range(10)}
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save({f"b.{name}": value for name, value in tensors.items()}, tmp_path / "b.bin")
    monkeypatch.setattr(checkpoint, "WINDOW_BYTES", 600)
    weights = checkpoint.Checkpoint([tmp_path / "a.safetensors", tmp_path / "b.bin"], lambda n: n.replace(".", "_"))
    kept = dict(weights)
    assert len(kept) == 20 and "w10" not in weights
    for name, value in tensors.items():
        assert torch.equal(kept[name], value) and torch.equal(kept[f"b_{name}"], value)


def test_a_missing_shard_counts_as_no_weights_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path, unet={})
    index = tmp_path / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part-1.safetensors"}}))
    assert not resolve_model(str(tmp_path)).has_weights
    index.unlink()
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(CaptureError, match=r"diffusion_pytorch_model\.safetensors"):
        resolve_model(str(tmp_path)).load_weights("unet")


def test_a_torch_file_that_holds_code_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, unet={})
    torch.save({"a": Path("/")}, tmp_path / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(CaptureError, match=r"diffusion_pytorch_model\.bin"):
        resolve_model(str(tmp_path)).load_weights("unet")


@pytest.mark.parametrize(
    "stage, published, known",
    [
        ("clip", "text_model.encoder.layers.0.mlp.fc1.weight", "encoder.layers.0.mlp.fc1.weight"),
        ("clip", "encoder.layers.0.mlp.fc1.weight", "encoder.layers.0.mlp.fc1.weight"),
        ("clip2", "text_projection.weight", "text_projection.weight"),
        ("clip", "bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight"),
        ("clip", "bert.embeddings.LayerNorm.beta", "embeddings.LayerNorm.bias"),
        (
            "vae",
            "decoder.mid_block.attentions.0.proj_attn.bias",
            "decoder.mid_block.attentions.0.to_out.0.bias",
        ),
        ("vae", "decoder.mid_block.attentions.0.query.weight", "decoder.mid_block.attentions.0.to_q.weight"),
        ("unet", "mid_block.attentions.0.key.weight", "mid_block.attentions.0.key.weight"),
    ],
)
def test_every_published_name_of_a_tensor_means_the_same(stage: str, published: str, known: str) -> None:
    assert canonical_weight_name(stage, published) == known
