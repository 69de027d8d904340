"""The parameters of a schedule rule as a design space, beside MetaSchedule's sketches."""

from __future__ import annotations

import json
from typing import Any

from tvm.s_tir import Schedule

from ..schedule_rules import RuleSpace
from ..schedule_rules.rule import ANNOTATION, Parameter
from .features import Features, quantity_features, value_features
from .knobs import Decision, KnobSpace, OrderedKnob


class RuleSketch(KnobSpace):
    """The schedules of one rule for one kernel; a decision is an index into a parameter's candidates."""

    def __init__(self, space: RuleSpace) -> None:
        super().__init__(tuple(_knob(parameter) for parameter in space.parameters))
        self.space = space
        self.default = tuple(p.candidates.index(p.default) for p in space.parameters)

    def fits(self, decisions: tuple[Decision, ...]) -> bool:
        """Return whether the values that ``decisions`` choose keep the limits of a workgroup."""
        return self.space.fits(self._values(decisions))

    def schedule(self, decisions: tuple[Decision, ...]) -> Schedule:
        """Return the schedule; raises what the rule raises where the values do not fit after all."""
        return self.space.schedule(self._values(decisions))

    def decisions_of(self, trace: list[Any]) -> tuple[Decision, ...] | None:
        """Return the decisions of a trace in TVM's JSON values; None where it is no trace of this rule."""
        for kind, inputs, attributes, _ in trace[0]:
            if kind == "Annotate" and attributes == [ANNOTATION] and len(inputs) == 2:
                try:
                    values = self.space.values_of(str(json.loads(inputs[1])))
                except (TypeError, ValueError):
                    return None
                if values is None:
                    return None
                parameters = self.space.parameters
                if any(values[p.name] not in p.candidates for p in parameters):
                    return None
                return tuple(p.candidates.index(values[p.name]) for p in parameters)
        return None

    def features(self, decisions: tuple[Decision, ...]) -> Features:
        """Return the features of a point that fits."""
        values = self._values(decisions)
        found = value_features(values) | quantity_features(self.space.describe(values))
        found[f"is.{self.space.rule}"] = 1.0
        return found

    def _values(self, decisions: tuple[Decision, ...]) -> dict[str, int]:
        chosen = {}
        for parameter, index in zip(self.space.parameters, decisions, strict=True):
            assert isinstance(index, int)
            chosen[parameter.name] = parameter.candidates[index]
        return chosen


_NEAR = 0.6
"""Weight of each step away from the default: most points far from it are slow on every device."""


def _knob(parameter: Parameter) -> OrderedKnob:
    middle = parameter.candidates.index(parameter.default)
    return OrderedKnob(
        parameter.candidates, tuple(_NEAR ** abs(index - middle) for index in range(len(parameter.candidates)))
    )
