"""The hand-written stages between the networks, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from wgtune.build.bundle.glue import ENTRY, glue_grid, glue_source
from wgtune.devices.device import Device
from wgtune.devices.webgpu.gpu import (
    Step,
    bind,
    encode,
    make_pipeline,
    open_device,
    read,
    storage_buffer,
    uniform_buffer,
    write,
)


def run(
    device: Device, name: str, arrays: list[np.ndarray], words: tuple[int, ...], grid: tuple[int, int, int]
) -> list:
    """Run a glue shader over ``arrays``, then the uniform; returns what the buffers hold afterwards."""
    gpu = open_device(device)
    buffers = [storage_buffer(gpu, array.nbytes) for array in arrays]
    for buffer, array in zip(buffers, arrays, strict=True):
        write(gpu, buffer, array)
    pipeline = make_pipeline(gpu, glue_source(name), ENTRY)
    ranges = [(buffer, 0, array.nbytes) for buffer, array in zip(buffers, arrays, strict=True)]
    group = bind(gpu, pipeline, [*ranges, (uniform_buffer(gpu, words), 0, 16)])
    gpu.queue.submit([encode(gpu, [Step(pipeline, group, grid)])])
    return [
        read(gpu, buffer, array.nbytes).view(array.dtype).reshape(array.shape)
        for buffer, array in zip(buffers, arrays, strict=True)
    ]


def step(terms: int, slot: int, guidance: float) -> tuple[int, ...]:
    return (terms, slot, int(np.float32(guidance).view(np.uint32)), 0)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("shape", [(1, 4, 3, 5), (3, 4, 16, 24)])
def test_schedule_is_a_weighted_sum_into_every_half(device: Device, shape: tuple[int, ...], copies: int) -> None:
    random = np.random.default_rng(0)
    history = random.standard_normal((52, *shape)).astype(np.float32)
    coefficients = random.uniform(-15, 15, 52).astype(np.float32)
    poison = np.full((copies, *shape), np.nan, np.float32)
    for terms in (1, 2, 51):
        _, _, latents, decoded = run(
            device,
            "schedule",
            [history, coefficients, poison, poison[0]],
            step(terms, 0, 0),
            glue_grid(history[0].size),
        )
        exact = np.tensordot(coefficients[:terms].astype(np.float64), history[:terms].astype(np.float64), 1)
        scale = np.abs(coefficients[:terms]).sum()
        np.testing.assert_allclose(decoded, exact, atol=1e-6 * scale, rtol=0)
        for copy in latents:
            assert np.array_equal(copy, decoded)


def test_guide_writes_one_slot_of_the_history(device: Device) -> None:
    random = np.random.default_rng(1)
    noise = random.standard_normal((2, 3, 4, 7, 9)).astype(np.float32)
    history = random.standard_normal((5, *noise.shape[1:])).astype(np.float32)
    for slot, guidance in ((1, 7.5), (4, 1.0)):
        _, got = run(device, "guide", [noise, history], step(0, slot, guidance), glue_grid(history[0].size))
        expected = history.copy()
        expected[slot] = noise[0] + np.float32(guidance) * (noise[1] - noise[0])
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def test_keep_writes_the_output_as_it_is(device: Device) -> None:
    random = np.random.default_rng(2)
    noise = random.standard_normal((3, 4, 7, 9)).astype(np.float32)
    history = random.standard_normal((5, *noise.shape)).astype(np.float32)
    _, got = run(device, "keep", [noise, history], step(0, 2, 7.5), glue_grid(noise.size))
    expected = history.copy()
    expected[2] = noise
    assert np.array_equal(got, expected)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 1, 1), (2, 24, 40), (3, 17, 31)])
def test_image_rounds_as_diffusers_does(device: Device, batch: int, height: int, width: int) -> None:
    image = np.random.default_rng(3).uniform(0, 1, (batch, 3, height, width)).astype(np.float32)
    flat = image.reshape(-1)
    # Exact halves: to the even neighbour. Values outside 0..1 are cut.
    special = np.concatenate([(np.arange(0, 255) + 0.5) / 255, [-0.1, 1.1, 0.0, 1.0]]).astype(np.float32)
    flat[: special.size] = special[: flat.size]
    rgba = np.zeros((batch, height, width), np.uint32)
    _, got = run(device, "image", [image, rgba], (height * width, 0, 0, 0), glue_grid(rgba.size))
    pixels = got.view(np.uint8).reshape(batch, height, width, 4)
    expected = (image.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    assert np.array_equal(pixels[..., :3], expected)
    assert (pixels[..., 3] == 255).all()


def test_a_grid_longer_than_one_dimension_reaches_every_element(device: Device) -> None:
    elements = 256 * 700 + 3
    x, y, z = glue_grid(elements, most=100)
    assert x <= 100 and y <= 100 and z == 1 and x * y * 256 >= elements
    noise = np.arange(elements, dtype=np.float32)
    _, got = run(device, "keep", [noise, np.zeros(2 * elements, np.float32)], step(0, 1, 0), (x, y, z))
    assert np.array_equal(got[elements:], noise)
