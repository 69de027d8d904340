"""The order of a stage's calls in which its intermediate tensors take the least memory.

Capture leaves calls in the order of the model's code, where a tensor may wait long for its last use: a residual's
shortcut comes after all of the branch beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...tuner.ir import Call, Kernel, Stage

WIDTH = 8
"""Partial orders that the search keeps at each step. More find nothing better for Stable Diffusion's networks."""


def order_calls(stage: Stage, kernels: Mapping[str, Kernel]) -> list[Call]:
    """Return the calls of ``stage`` in an order that takes less memory at the peak; as they are where none is found.

    A beam search over what has run, by the peak so far, then by what is alive; and depth first, where each tensor is
    used as soon as it can be, since sums over parts of a picture take memory early to save more later. ``kernels`` tell
    which operands a call writes. What is alive is counted in bytes of temps; a temp lives from its first write to its
    last use.
    """
    graph = _Graph.of(stage, kernels)
    states = [_State(0, 0, 0, (), graph.first)]
    for _ in stage.calls:
        following: dict[int, _State] = {}
        for state in states:
            for number in state.ready:
                new = graph.run(state, number)
                known = following.get(new.done)
                if known is None or (new.peak, new.alive) < (known.peak, known.alive):
                    following[new.done] = new
        states = sorted(following.values(), key=lambda state: (state.peak, state.alive, state.order))[:WIDTH]
    given = _State(0, 0, 0, (), graph.first)
    for number in range(len(stage.calls)):
        given = graph.run(given, number)
    best = min(given, states[0], key=lambda state: state.peak)
    # Each time under the peak before. At the same peak, less is alive in between, which shares memory better.
    while (deep := graph.depth_first(best.peak - 1)).peak <= best.peak:
        reached = deep.peak == best.peak
        best = deep
        if reached:
            break
    return [stage.calls[number] for number in best.order]


@dataclass(frozen=True)
class _State:
    """The calls that have run, as bits of ``done`` and in ``order``; bytes at the ``peak`` and ``alive`` now."""

    peak: int
    alive: int
    done: int
    order: tuple[int, ...]
    ready: frozenset[int]


@dataclass(frozen=True)
class _Graph:
    """What calls touch and which they need. Sets of calls are the bits of a number.

    - ``sizes``: bytes of each tensor; 0 for one that is no temp
    - ``touched``: by call, the tensors that it reads or writes
    - ``users``: by tensor, the calls that do
    - ``needs``, ``needed_by``: by call, the calls before and after it
    """

    sizes: list[int]
    touched: list[set[int]]
    users: list[int]
    needs: list[int]
    needed_by: list[list[int]]
    first: frozenset[int]

    @classmethod
    def of(cls, stage: Stage, kernels: Mapping[str, Kernel]) -> _Graph:
        sizes = [*stage.temps, *(0 for _ in stage.outputs)]
        users, writers = [0] * len(sizes), [0] * len(sizes)
        touched: list[set[int]] = []
        needs: list[int] = []
        for number, call in enumerate(stage.calls):
            reads, writes = set[int](), set[int]()
            for index, operand in enumerate(call.operands):
                if operand.space in ("temp", "output"):
                    tensor = operand.index + (len(stage.temps) if operand.space == "output" else 0)
                    (writes if index in kernels[call.kernel].outputs else reads).add(tensor)
            # What is read was written before, and what is written was used before: in the order of the model's code.
            needs.append(0)
            for tensor in reads:
                needs[-1] |= writers[tensor]
            for tensor in writes:
                needs[-1] |= users[tensor]
            touched.append(reads | writes)
            for tensor in touched[-1]:
                users[tensor] |= 1 << number
            for tensor in writes:
                writers[tensor] |= 1 << number
        needed_by = [[n for n, needed in enumerate(needs) if needed >> number & 1] for number in range(len(needs))]
        first = frozenset(number for number, needed in enumerate(needs) if not needed)
        return cls(sizes, touched, users, needs, needed_by, first)

    def depth_first(self, most: int) -> _State:
        """Run each time the call that uses what was written last; one that takes over ``most`` bytes only if all do."""
        state = _State(0, 0, 0, (), self.first)

        def newest(number: int) -> int:
            needed = (step for step, done in enumerate(state.order) if self.needs[number] >> done & 1)
            return max(needed, default=-1)

        while state.ready:
            number = min(state.ready, key=lambda n: (self._alive(state, n) > most, -newest(n), n))
            state = self.run(state, number)
        return state

    def _alive(self, state: _State, number: int) -> int:
        """Return the bytes alive while call ``number`` runs."""
        return state.alive + sum(self.sizes[t] for t in self.touched[number] if not self.users[t] & state.done)

    def run(self, state: _State, number: int) -> _State:
        """Return the state after call ``number``."""
        done = state.done | 1 << number
        alive = self._alive(state, number)
        peak = max(state.peak, alive)
        alive -= sum(self.sizes[t] for t in self.touched[number] if not self.users[t] & ~done)
        enabled = (n for n in self.needed_by[number] if not self.needs[n] & ~done)
        return _State(peak, alive, done, (*state.order, number), (state.ready - {number}).union(enabled))
