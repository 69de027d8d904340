"""The demo model's training at toy size: whole, seeded, resumable, and getting better."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from wgtune.cli.demo.model import make_networks
from wgtune.cli.demo.scenes import draw
from wgtune.cli.demo.trained import make_trained_pipeline, write_trained
from wgtune.cli.demo.training import checkpoints, denoiser
from wgtune.cli.demo.training.autoencoder import pictures, scale_latents, train_autoencoder
from wgtune.cli.demo.training.evaluation import Score, held_out_scenes, judge
from wgtune.cli.demo.training.examples import Examples
from wgtune.cli.demo.training.program import Lengths, train_demo_model
from wgtune.support.console import Report

pytestmark = pytest.mark.slow

TOY = Lengths(autoencoder_steps=3, pictures=70, denoiser_steps=4, captions=2)


def watched(watch: Report) -> Callable[[str], AbstractContextManager[Report]]:
    """A progress bar that hands every report on, with its title before the text."""

    @contextmanager
    def bar(title: str) -> Iterator[Report]:
        yield lambda what, done: watch(f"{title}: {what}", done)

    return bar


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
    assert set(files) == {"text_encoder", "unet", "vae"}
    return {f"{name}.{key}": value for name, file in files.items() for key, value in file.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Score, list[tuple[str, float]]]:
    """The weights of an uninterrupted toy run, their score, and what was reported."""
    folder = tmp_path_factory.mktemp("trained")
    told: list[tuple[str, float]] = []
    score = train_demo_model(folder / "out", folder / "work", 1, TOY, watched(lambda *report: told.append(report)))
    return folder / "out", score, told


def test_a_run_writes_a_model_that_draws_and_tells_its_progress(
    trained: tuple[Path, Score, list[tuple[str, float]]], tmp_path: Path
) -> None:
    folder, score, told = trained
    assert score.drawn == 2
    assert all(value.dtype == torch.float16 for value in weights(folder).values())
    assert [done for what, done in told if what.startswith("Denoiser")] == [0.25, 0.5, 0.75, 1.0]
    assert {what.split(":")[0] for what, _ in told} == {
        "Autoencoder",
        "Training set",
        "Denoiser and text encoder",
        "Score",
    }
    pipeline = make_trained_pipeline(tmp_path / "pipeline", folder)
    scheduler = json.loads((pipeline / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    assert scheduler["prediction_type"] == "v_prediction", "as it was trained"
    text_encoder = load_file(pipeline / "text_encoder" / "model.safetensors")
    table = next(value for key, value in text_encoder.items() if key.endswith("token_embedding.weight"))
    known = int((table != 0).any(dim=1).sum())
    assert 10 < known < 60, "words of the captions, and no others"


def test_an_interrupted_run_ends_with_the_same_weights(
    trained: tuple[Path, Score, list[tuple[str, float]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    stops = ["Autoencoder: step 2 ", "Training set: 64 ", "Denoiser and text encoder: step 3 "]

    def interrupt(what: str, done: float) -> None:
        if stops and what.startswith(stops[0]):
            stops.pop(0)
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train_demo_model(tmp_path / "out", tmp_path / "work", 1, TOY, watched(interrupt))
    train_demo_model(tmp_path / "out", tmp_path / "work", 1, TOY, watched(interrupt))
    expected, got = weights(trained[0]), weights(tmp_path / "out")
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_another_seed_gives_other_weights(trained: tuple[Path, Score, list[tuple[str, float]]], tmp_path: Path) -> None:
    train_demo_model(tmp_path / "out", tmp_path / "work", 2, TOY, watched(lambda what, done: None))
    first, second = weights(trained[0]), weights(tmp_path / "out")
    assert all(not torch.equal(first[name], second[name]) for name in first if name.endswith("conv_in.weight"))


def test_the_autoencoder_gets_better_and_its_latents_have_unit_size(tmp_path: Path) -> None:
    torch.manual_seed(3)
    vae = make_networks()[2]
    errors: list[float] = []
    train_autoencoder(vae, 40, 3, tmp_path / "vae.pt", lambda what, done: errors.append(float(what.split()[-1])))
    assert np.mean(errors[-5:]) < 0.7 * np.mean(errors[:5])
    seen = pictures(9, 0, 16)
    with torch.no_grad():
        before = vae.decode(vae.encode(seen).latent_dist.mean).sample
        scale_latents(vae, 3, 64)
        latents = vae.encode(seen).latent_dist.mean
        after = vae.decode(latents).sample
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)
    spread = (latents * vae.config.scaling_factor).std(dim=(0, 2, 3))
    assert ((spread > 0.7) & (spread < 1.4)).all()


@pytest.mark.parametrize("predicted", ["epsilon", "v_prediction"])
def test_the_denoiser_gets_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predicted: str) -> None:
    from diffusers import DDPMScheduler

    monkeypatch.setattr(denoiser, "BATCH", 16)
    torch.manual_seed(4)
    text_encoder, unet, _ = make_networks()
    examples = Examples(torch.ones(8, 4, 16, 16), torch.full((8, 77), 320), torch.full((77,), 49407))
    losses: list[float] = []
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=predicted
    )
    denoiser.train_denoiser(
        unet,
        text_encoder,
        examples,
        scheduler,
        30,
        4,
        {},
        tmp_path / "unet.pt",
        lambda what, done: losses.append(float(what.split()[-1])),
    )
    assert losses[-1] < 0.7 * losses[0]


def test_half_floats_are_what_is_written_and_read(tmp_path: Path) -> None:
    networks = make_networks()
    write_trained(tmp_path / "weights", *networks)
    pipeline = make_trained_pipeline(tmp_path / "pipeline", tmp_path / "weights")
    unet = load_file(pipeline / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value.half().float(), unet[name]) for name, value in networks[1].state_dict().items())


def test_held_out_captions_differ_and_right_drawings_pass() -> None:
    scenes = held_out_scenes(40)
    assert len({scene.caption for scene in scenes}) == 40
    assert all(scene.held_out for scene in scenes)
    random = np.random.default_rng(0)
    drawn = [draw(scene, random) for scene in scenes]
    assert judge(scenes, drawn) == Score(40, {})
    exchanged = judge(scenes, drawn[1:] + drawn[:1])
    assert len(exchanged.wrong) > 35
