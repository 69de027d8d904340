"""The parameters of a schedule rule as a design space, beside MetaSchedule's sketches."""

from __future__ import annotations

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace

from ..schedule_rules import RuleSpace
from ..schedule_rules.rule import ANNOTATION, Parameter
from .knobs import Decision, KnobSpace, OrderedKnob


class RuleSketch(KnobSpace):
    """The schedules of one rule for one kernel; a decision is an index into a parameter's candidates."""

    def __init__(self, space: RuleSpace) -> None:
        super().__init__(tuple(_knob(parameter) for parameter in space.parameters))
        self.space = space

    def fits(self, decisions: tuple[Decision, ...]) -> bool:
        """Return whether the values that ``decisions`` choose keep the limits of a workgroup."""
        return self.space.fits(self._values(decisions))

    def schedule(self, decisions: tuple[Decision, ...]) -> Schedule:
        """Return the schedule; raises what the rule raises where the values do not fit after all."""
        return self.space.schedule(self._values(decisions))

    def decisions_of(self, trace: Trace) -> tuple[Decision, ...] | None:
        """Return the decisions of ``trace``; None where it is no trace of this rule."""
        for instruction in trace.insts:
            if instruction.kind.name == "Annotate" and str(instruction.attrs[0]) == ANNOTATION:
                values = self.space.values_of(str(instruction.inputs[1]))
                if values is None:
                    return None
                parameters = self.space.parameters
                if any(values[p.name] not in p.candidates for p in parameters):
                    return None
                return tuple(p.candidates.index(values[p.name]) for p in parameters)
        return None

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
