"""Watching a baseline through a session, against a device whose speed is written here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from wgtune.database.schema.records import TrialKind
from wgtune.support.enums import TrialState
from wgtune.tuner.session import drift
from wgtune.tuner.session.drift import INTERVAL_S, DriftWatch
from wgtune.tuner.session.trial import Attempt, Outcome

KERNEL = SimpleNamespace(id="k", name="matmul_1")
OTHER = SimpleNamespace(id="o", name="softmax_2")


class Bench:
    """A clock, and a device on which everything takes ``speed`` times its true time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.speed = 1.0
        self.noise = 0.0
        self.trial_s = 0.1
        self.true_s = {"base": 2e-3, "other base": 1e-3}
        self.trials: list[tuple[str, Attempt]] = []
        self.hiccups = 0
        self.known = None
        self.watch = DriftWatch(self.measure, lambda: self.known, lambda: self.now)

    def outcome(self, trace: str) -> Outcome:
        middle = self.true_s[trace] * self.speed
        if self.hiccups:
            self.hiccups -= 1
            middle *= 2
        samples = tuple(middle * (1 + self.noise * step / 5) for step in range(-5, 6))
        return Outcome(TrialState.OK, middle, "", samples)

    def measure(self, kernel, attempt: Attempt) -> Outcome:
        self.now += self.trial_s
        self.trials.append((kernel.id, attempt))
        return self.outcome(attempt.trace)

    def trial(self, trace: str, kind=TrialKind.SEARCH, kernel=KERNEL) -> None:
        """A trial of the session itself."""
        self.now += self.trial_s
        self.watch.record(kernel, Attempt(kind, trace, None, ""), self.outcome(trace))

    def wait(self):
        self.now += INTERVAL_S + 1
        return self.watch.check()

    def repeated(self) -> list[str]:
        return [attempt.trace for _, attempt in self.trials if attempt.repeat]


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.true_s |= {"good": 1e-3, "near": 1.04e-3, "slow": 3e-3}
    made.trial("base", TrialKind.BASELINE)
    return made


def test_a_steady_device_is_looked_at_now_and_then_and_nothing_follows(bench):
    assert bench.watch.check() is None and bench.trials == []
    bench.trial("good")
    assert bench.wait() is None and bench.wait() is None
    assert [attempt.kind for _, attempt in bench.trials] == [TrialKind.CHECK] * 2
    assert bench.watch.drifts == [] and bench.repeated() == []


def test_what_was_measured_while_the_device_slowed_is_measured_again(bench):
    bench.trial("slow")
    assert bench.wait() is None
    bench.speed = 1.06
    for trace in ("slow", "good", "near"):
        bench.trial(trace)
    moved = bench.wait()
    assert moved is not None and moved.ratio == pytest.approx(1.06) and moved.affected == 3
    assert bench.repeated() == ["good", "near", "slow"], "what might be the best comes first"
    assert "+6.0 %" in str(moved) and KERNEL.name in str(moved)
    assert bench.wait() is None, "the new speed is what later looks are compared with"
    bench.speed = 1.0
    back = bench.wait()
    assert back is not None and back.ratio == pytest.approx(1 / 1.06) and "−5.7 %" in str(back)
    assert [line.split(";")[0] for line in bench.watch.notes()] == [str(moved).split(";")[0], str(back).split(";")[0]]


def test_baselines_measured_meanwhile_are_measured_again_whatever_their_rank(bench):
    bench.trial("other base", TrialKind.BASELINE, OTHER)
    bench.true_s["much better"] = 1e-4
    bench.trial("much better", kernel=OTHER)
    bench.speed = 0.9
    bench.wait()
    assert set(bench.repeated()) == {"base", "much better", "other base"}
    kinds = {attempt.trace: attempt.kind for _, attempt in bench.trials if attempt.repeat}
    assert kinds["other base"] is TrialKind.BASELINE and kinds["much better"] is TrialKind.SEARCH


@pytest.mark.parametrize("speed", [1.029, 0.971])
def test_three_per_cent_are_tolerated(bench, speed):
    bench.speed = speed
    assert bench.wait() is None


def test_a_hiccup_is_no_drift(bench):
    bench.hiccups = 1
    assert bench.wait() is None and bench.repeated() == []


def test_what_noise_explains_is_no_drift(bench):
    bench.noise = 0.2
    bench.watch = DriftWatch(bench.measure, lambda: None, lambda: bench.now)
    bench.trial("base", TrialKind.BASELINE)
    bench.speed = 1.05
    assert bench.wait() is None


def test_a_machine_that_never_rests_still_searches(bench):
    """Repeats get a fifth of the session's time; what is left over is told, and made up for when there is time."""
    bench.trial_s = 5.0
    for number in range(10):
        bench.speed = 1.2 if number % 2 else 1.0
        for name in "abcd":
            bench.trial("good", kernel=SimpleNamespace(id=f"{name}{number}", name=name))
        assert bench.wait() is not None or number == 0
    spent = bench.trial_s * len(bench.repeated())
    assert 0 < spent <= 0.2 * bench.now + bench.trial_s
    assert "were not measured again, for lack of time" in bench.watch.notes()[-1]
    for _ in range(100):
        bench.wait()
    assert len(bench.watch.notes()) == len(bench.watch.drifts)


def test_a_session_without_baselines_of_its_own_watches_an_earlier_one():
    bench = Bench()
    bench.true_s["good"] = 1e-3
    assert bench.wait() is None and bench.trials == []
    bench.known = (KERNEL, Attempt(TrialKind.BASELINE, "base", None, ""))
    assert bench.wait() is None and len(bench.trials) == 1
    bench.speed = 1.1
    bench.trial("good")
    assert bench.wait() is not None and bench.repeated() == ["good"]


def test_a_baseline_of_a_good_length_is_watched():
    assert drift.suitability(2e-3) == 1 and drift.suitability(1e-3) == drift.suitability(4e-3) == 0.5
    assert drift.suitability(0.06) == 0 and drift.suitability(0.0) == 0
    bench = Bench()
    bench.true_s |= {"long": 0.2, "fair": 0.03, "fine": 3e-3, "as good": 2e-3}
    for trace in ("long", "fair", "fine", "as good"):
        bench.trial(trace, TrialKind.BASELINE)
    bench.wait()
    assert [attempt.trace for _, attempt in bench.trials] == ["fine"]


def test_a_check_that_fails_says_nothing(bench, monkeypatch):
    monkeypatch.setattr(bench, "outcome", lambda trace: Outcome(TrialState.RUN_TIMEOUT, None, "late"))
    assert bench.wait() is None
