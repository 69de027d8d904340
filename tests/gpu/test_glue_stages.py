"""The hand-written stages between the networks, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from wgtune.build.bundle.glue import ENTRY, glue_grid, glue_source
from wgtune.build.format.manifest import MOST_STATES
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


def step(states: int, guidance: float) -> tuple[int, ...]:
    return (states, int(np.float32(guidance).view(np.uint32)), 0, 0)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("shape", [(1, 4, 3, 5), (3, 4, 16, 24)])
def test_schedule_applies_a_row_to_every_state(device: Device, shape: tuple[int, ...], copies: int) -> None:
    random = np.random.default_rng(0)
    poison = np.full((copies, *shape), np.nan, np.float32)
    for states in (1, 2, MOST_STATES):
        state = random.standard_normal((2 + MOST_STATES, *shape)).astype(np.float32)
        row = random.uniform(-15, 15, (states, 2 + states)).astype(np.float32)
        # What counts for nothing may be anything, and states that the sampler does not have stay as they are.
        row[:, 1] = 0
        state[1] = np.nan
        got, _, latents, decoded = run(
            device,
            "schedule",
            [state, row, poison, poison[0]],
            step(states, 0),
            glue_grid(state[0].size),
        )
        used = np.delete(np.arange(2 + states), 1)
        exact = np.tensordot(row[:, used].astype(np.float64), state[used].astype(np.float64), 1)
        np.testing.assert_allclose(got[2 : 2 + states], exact, atol=1e-6 * np.abs(row).sum(), rtol=0)
        assert np.array_equal(got[[0, *range(2 + states, 2 + MOST_STATES)]], state[[0, *range(2 + states, 10)]])
        assert np.array_equal(decoded, got[2])
        for copy in latents:
            assert np.array_equal(copy, decoded)


def test_guide_writes_the_output_of_the_call(device: Device) -> None:
    random = np.random.default_rng(1)
    noise = random.standard_normal((2, 3, 4, 7, 9)).astype(np.float32)
    state = random.standard_normal((5, *noise.shape[1:])).astype(np.float32)
    for guidance in (7.5, 1.0):
        _, got = run(device, "guide", [noise, state], step(3, guidance), glue_grid(state[0].size))
        expected = state.copy()
        expected[1] = noise[0] + np.float32(guidance) * (noise[1] - noise[0])
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def test_keep_writes_the_output_as_it_is(device: Device) -> None:
    random = np.random.default_rng(2)
    noise = random.standard_normal((3, 4, 7, 9)).astype(np.float32)
    state = random.standard_normal((5, *noise.shape)).astype(np.float32)
    _, got = run(device, "keep", [noise, state], step(3, 7.5), glue_grid(noise.size))
    expected = state.copy()
    expected[1] = noise
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
    _, got = run(device, "keep", [noise, np.zeros(2 * elements, np.float32)], step(1, 0), (x, y, z))
    assert np.array_equal(got[elements:], noise)
