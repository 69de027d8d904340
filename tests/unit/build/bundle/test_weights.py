"""Weight shards: aligned, bounded, hashed, and exactly what the calls read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgtune.build.bundle.weights import ShardLayout, ShardWriter, layout_shards, stored_tensors
from wgtune.support.errors import BundleError
from wgtune.tuner.ir import Call, Operand, Stage, TensorSpec


def stage(
    name: str, sizes: list[int], used: set[int] | None = None, constants: list[np.ndarray] | None = None
) -> Stage:
    """A stage with float32 weights of these many elements, of which it reads ``used`` (all), and int32 constants."""
    constants = constants or []
    operands = [Operand("param", i, 0, 4 * n) for i, n in enumerate(sizes) if used is None or i in used]
    operands += [Operand("constant", i, 0, c.nbytes) for i, c in enumerate(constants)]
    params = [TensorSpec(f"w{i}", (n,), "float32") for i, n in enumerate(sizes)]
    return Stage(name, [], [], params, constants, [], [Call("k", tuple(operands))])


@given(st.lists(st.lists(st.integers(1, 400), max_size=8), min_size=1, max_size=3))
def test_slots_are_aligned_apart_and_within_bounds(sizes: list[list[int]]) -> None:
    stages = {f"s{i}": stage(f"s{i}", each) for i, each in enumerate(sizes)}
    layout = layout_shards(stored_tensors(stages), shard_bytes=1024)
    ends: dict[int, int] = {}
    for (name, index), slot in layout.slots.items():
        assert isinstance(index, int) and slot.nbytes == 4 * sizes[int(name[1:])][index]
        assert slot.offset % 256 == 0 and slot.offset >= ends.get(slot.shard, 0)
        ends[slot.shard] = slot.offset + slot.nbytes
        assert slot.offset == 0 or ends[slot.shard] <= 1024, "only a tensor alone may be larger than a shard"
    assert layout.sizes == [ends[i] for i in range(len(ends))]
    assert len(layout.slots) == sum(map(len, sizes))


def test_shards_hold_the_tensors_and_their_hashes(tmp_path: Path) -> None:
    constants = [np.arange(3, dtype=np.int32)]
    stages = {"clip": stage("clip", [10, 100, 300], {0, 2}, constants), "unet": stage("unet", [70])}
    values = {"clip": [np.full(n, n, np.float32) for n in (10, 100, 300)], "unet": [np.full(70, -1, np.float32)]}
    stored = stored_tensors(stages)
    layout = layout_shards(stored, shard_bytes=1024)
    assert ("clip", 1) not in layout.slots, "no call reads it"
    with ShardWriter(tmp_path, layout) as writer:
        for each in stored:
            writer.write_stage(each, values[each.stage])
    for shard, (size, info) in enumerate(zip(layout.sizes, writer.written, strict=True)):
        data = (tmp_path / ShardLayout.file(shard)).read_bytes()
        assert len(data) == size == info.nbytes and hashlib.sha256(data).hexdigest() == info.sha256
    for name, one in stages.items():
        for operand in one.calls[0].operands:
            slot = layout.slot(one, operand)
            data = (tmp_path / ShardLayout.file(slot.shard)).read_bytes()[slot.offset : slot.offset + slot.nbytes]
            expected = values[name][operand.index] if operand.space == "param" else constants[operand.index]
            assert data == expected.tobytes()
    assert len(layout.slots) == 4


def test_programs_share_weights_and_equal_constants(tmp_path: Path) -> None:
    """The second program reads another weight, has its constants in another order, and one of its own."""
    same, other, own = (np.full(5, n, np.int32) for n in range(3))
    first = stage("vae", [10, 20, 30], {0, 1}, [same, other])
    second = stage("vae", [10, 20, 30], {1, 2}, [own, other, same])
    values = [np.full(n, n, np.float32) for n in (10, 20, 30)]
    (stored,) = stored_tensors({"vae": first}, {"vae": second})
    layout = layout_shards([stored])
    with ShardWriter(tmp_path, layout) as writer:
        writer.write_stage(stored, values)
    data = (tmp_path / ShardLayout.file(0)).read_bytes()
    for each in (first, second):
        for operand in each.calls[0].operands:
            slot = layout.slot(each, operand)
            expected = values[operand.index] if operand.space == "param" else each.constants[operand.index]
            assert data[slot.offset : slot.offset + slot.nbytes] == expected.tobytes()
    assert len(layout.slots) == 3 + 3
    alone = layout_shards(stored_tensors({"vae": stage("vae", [10, 20, 30], None, [same, other])}))
    assert [layout.slots[key] for key in alone.slots] == list(alone.slots.values()), "what comes first stays there"
    with pytest.raises(ValueError, match="the captures of vae differ in their weights"):
        stored_tensors({"vae": first}, {"vae": stage("vae", [10, 20, 31])})


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (np.zeros(4, np.float16), "float16"),
        (np.zeros((2, 2), np.float32), r"\(2, 2\)"),
        (np.array([0, 1, np.nan, 0], np.float32), "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, value: np.ndarray, what: str) -> None:
    stored = stored_tensors({"vae": stage("vae", [4])})
    with pytest.raises(BundleError, match=what) as error, ShardWriter(tmp_path, layout_shards(stored)) as writer:
        writer.write_stage(stored[0], [value])
    assert "w0 of vae" in error.value.message


def test_a_missing_weight_is_told(tmp_path: Path) -> None:
    stored = stored_tensors({"vae": stage("vae", [4, 4])})
    with pytest.raises(BundleError, match="1 weights"), ShardWriter(tmp_path, layout_shards(stored)) as writer:
        writer.write_stage(stored[0], [np.zeros(4, np.float32)])


def test_each_weight_is_written_before_the_next_is_asked_for(tmp_path: Path) -> None:
    (stored,) = stored_tensors({"unet": stage("unet", [100, 300, 50])})
    done: list[int] = []

    def values() -> Iterator[np.ndarray]:
        for index, spec in enumerate(stored.params):
            assert len(done) == index
            yield np.ones(spec.shape, np.float32)

    layout = layout_shards([stored], shard_bytes=1024)
    with ShardWriter(tmp_path, layout, done.append) as writer:
        writer.write_stage(stored, values())
    assert done == [400, 400 + 1200, 400 + 1200 + 200], "each tensor is larger than what its shard has left"
    assert sum(layout.sizes) == done[-1]
