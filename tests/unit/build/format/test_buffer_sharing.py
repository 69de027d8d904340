"""Buffer sharing: two tensors alive at once never share one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wgtune.build.format.buffer_sharing import Lifetime, aligned, assign_storages


@st.composite
def lifetimes(draw: st.DrawFn) -> Lifetime:
    first = draw(st.integers(0, 40))
    return Lifetime(draw(st.integers(1, 5000)), first, first + draw(st.integers(0, 10)))


@given(st.lists(lifetimes(), max_size=40))
def test_tensors_alive_at_once_never_share_and_every_storage_is_large_enough(tensors: list[Lifetime]) -> None:
    plan = assign_storages(tensors)
    for i, tensor in enumerate(tensors):
        assert plan.storages[plan.storage_of[i]] >= tensor.nbytes
        for j in range(i):
            alive_together = set(range(tensor.first, tensor.last + 1)) & set(
                range(tensors[j].first, tensors[j].last + 1)
            )
            assert not (alive_together and plan.storage_of[i] == plan.storage_of[j])
    assert set(plan.storage_of) == set(range(len(plan.storages)))
    most_alive = max(
        (sum(aligned(t.nbytes) for t in tensors if t.first <= now <= t.last) for now in range(60)), default=0
    )
    assert most_alive <= plan.nbytes <= sum(aligned(t.nbytes) for t in tensors)


def test_a_chain_needs_two_storages() -> None:
    chain = [Lifetime(1000, i, i + 1) for i in range(50)]
    plan = assign_storages(chain)
    assert len(plan.storages) == 2
    assert plan.nbytes == 2 * 1024


def test_nothing_needs_nothing() -> None:
    assert assign_storages([]).storages == ()
