"""Knobs: the undecided parts of a design space, and random points of it that keep the limits."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

Decision = int | tuple[int, ...]
"""The factors of a tile size, outermost first, or the index into the candidates of a choice."""

_DRAWS = 2000
"""Draws of some 20 µs each after which a sketch counts as having no decisions that fit."""


@dataclass(frozen=True)
class TileKnob:
    """A loop of ``extent`` iterations split into ``parts`` factors, the innermost at most ``max_innermost``."""

    extent: int
    parts: int
    max_innermost: int

    @cached_property
    def _primes(self) -> list[int]:
        left, prime, found = self.extent, 2, []
        while left > 1:
            while left % prime == 0:
                found.append(prime)
                left //= prime
            prime += 1
        return found

    def draw(self, rng: random.Random) -> tuple[int, ...]:
        """Draw factors by giving each prime of the extent to a random part."""
        while True:
            factors = [1] * self.parts
            for prime in self._primes:
                factors[rng.randrange(self.parts)] *= prime
            # A prime extent above the bound never fits the innermost part, so another draw always can.
            if factors[-1] <= self.max_innermost:
                return tuple(factors)

    def has(self, value: object) -> bool:
        """Return whether ``value`` is one that this knob may draw."""
        return (
            isinstance(value, tuple)
            and len(value) == self.parts
            and all(type(factor) is int and factor > 0 for factor in value)
            and math.prod(value) == self.extent
            and value[-1] <= self.max_innermost
        )

    def mutate(self, value: Decision, rng: random.Random) -> tuple[int, ...]:
        """Return ``value`` with one prime moved to another part, or ``value`` itself where that is impossible."""
        assert isinstance(value, tuple)
        sources = [part for part, factor in enumerate(value) if factor > 1]
        if not sources or self.parts < 2:
            return value
        source = rng.choice(sources)
        target = rng.choice([part for part in range(self.parts) if part != source])
        prime = rng.choice([p for p in set(self._primes) if value[source] % p == 0] or [1])
        factors = list(value)
        factors[source] //= prime
        factors[target] *= prime
        return tuple(factors) if factors[-1] <= self.max_innermost else value


@dataclass(frozen=True)
class ChoiceKnob:
    """A choice between ``candidates``, drawn with ``weights``."""

    candidates: tuple[int, ...]
    weights: tuple[float, ...]

    def draw(self, rng: random.Random) -> int:
        """Draw an index into ``candidates``."""
        return rng.choices(range(len(self.candidates)), self.weights)[0]

    def has(self, value: object) -> bool:
        """Return whether ``value`` is one that this knob may draw."""
        return type(value) is int and 0 <= value < len(self.candidates)

    def mutate(self, value: Decision, rng: random.Random) -> int:
        """Draw another index; 0 where there is only one."""
        return rng.choice([i for i in range(len(self.candidates)) if i != value] or [0])


@dataclass(frozen=True)
class OrderedKnob(ChoiceKnob):
    """A choice between ascending ``candidates``: a mutation takes a neighbour."""

    def mutate(self, value: Decision, rng: random.Random) -> int:
        """Return an index one or two places away; the same where there is only one."""
        assert isinstance(value, int)
        near = [i for i in range(len(self.candidates)) if 0 < abs(i - value) <= 2]
        return rng.choice(near or [value])


class KnobSpace(ABC):
    """A design space: knobs, and which decisions of them keep the limits."""

    def __init__(self, knobs: tuple[TileKnob | ChoiceKnob, ...]) -> None:
        self.knobs = knobs

    @abstractmethod
    def fits(self, decisions: tuple[Decision, ...]) -> bool:
        """Return whether ``decisions`` keep the limits of a workgroup."""

    def draw(self, rng: random.Random) -> tuple[Decision, ...] | None:
        """Draw decisions that fit the limits; None where none was found."""
        for _ in range(_DRAWS):
            decisions = tuple(knob.draw(rng) for knob in self.knobs)
            if self.fits(decisions):
                return decisions
        return None

    def mutate(self, decisions: tuple[Decision, ...], rng: random.Random) -> tuple[Decision, ...] | None:
        """Return ``decisions`` with one or two changed, within the limits; None where no such change was found."""
        if not self.knobs:
            return None
        for _ in range(_DRAWS // 10):
            changed = list(decisions)
            for _ in range(rng.choice((1, 1, 2))):
                index = rng.randrange(len(self.knobs))
                changed[index] = self.knobs[index].mutate(changed[index], rng)
            result = tuple(changed)
            if result != decisions and self.fits(result):
                return result
        return None
