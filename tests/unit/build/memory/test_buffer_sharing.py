"""Buffer sharing: tensors alive at once never overlap, and what one dispatch reads and writes has other buffers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wgtune.build.format.plan import ALIGNMENT, aligned
from wgtune.build.memory.buffer_sharing import Lifetime, assign_storages


@st.composite
def lifetimes(draw: st.DrawFn) -> Lifetime:
    first = draw(st.integers(0, 40))
    return Lifetime(draw(st.integers(1, 5000)), first, first + draw(st.integers(0, 10)))


@given(st.lists(lifetimes(), max_size=40), st.data())
def test_tensors_alive_at_once_never_overlap_and_lie_inside_their_storages(
    tensors: list[Lifetime], data: st.DataObject
) -> None:
    places = st.integers(0, max(len(tensors) - 1, 0))
    pairs = data.draw(st.lists(st.tuples(places, places), max_size=20)) if tensors else []
    apart: dict[int, set[int]] = {}
    for one, other in pairs:
        if one != other:
            apart.setdefault(one, set()).add(other)
    plan = assign_storages(tensors, apart)
    for i, tensor in enumerate(tensors):
        storage, start = plan.places[i]
        assert start % ALIGNMENT == 0 and start + tensor.nbytes <= plan.storages[storage]
        for j in range(i):
            if plan.places[j][0] != storage:
                continue
            assert j not in apart.get(i, ()) and i not in apart.get(j, ())
            if tensor.first <= tensors[j].last and tensors[j].first <= tensor.last:
                other = plan.places[j][1]
                assert start + tensor.nbytes <= other or other + tensors[j].nbytes <= start
    assert {storage for storage, _ in plan.places} == set(range(len(plan.storages)))
    most_alive = max(
        (sum(aligned(t.nbytes) for t in tensors if t.first <= now <= t.last) for now in range(60)), default=0
    )
    assert most_alive <= plan.nbytes <= sum(aligned(t.nbytes) for t in tensors)


def test_a_chain_needs_two_storages() -> None:
    chain = [Lifetime(1000, i, i + 1) for i in range(50)]
    plan = assign_storages(chain, {i: [i + 1] for i in range(49)})
    assert plan.storages == (1024, 1024)


def test_small_tensors_share_a_storage_that_a_large_one_left() -> None:
    small = [Lifetime(256, 5, 9), Lifetime(512, 5, 9), Lifetime(256, 6, 9)]
    plan = assign_storages([Lifetime(1024, 0, 4), *small], {})
    assert plan.storages == (1024,)
    assert sorted(start for _, start in plan.places[1:]) == [0, 512, 768]
    assert len(assign_storages([Lifetime(1024, 0, 4), *small], {1: {2}}).storages) == 2


def test_nothing_needs_nothing() -> None:
    assert assign_storages([], {}).storages == ()
