import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgtune.devices.measure.job import MeasureJob, Measurement, Sampling
from wgtune.devices.measure.protocol import (
    job_from_json,
    job_to_json,
    measurement_from_json,
    measurement_to_json,
)
from wgtune.devices.program import Buffer, Dispatch, Program, Requirements, Shader
from wgtune.support.enums import TrialState
from wgtune.support.json_lines import decode_line, encode_line

TRIPLES = st.tuples(*[st.integers(1, 65535)] * 3)
BUFFERS = st.builds(Buffer, st.sampled_from(["arg", "scratch"]), st.integers(0, 9))
PROGRAMS = st.builds(
    Program,
    st.lists(st.builds(Shader, st.text(), st.text(), TRIPLES), max_size=2).map(tuple),
    st.lists(
        st.builds(
            Dispatch,
            st.integers(0, 3),
            st.lists(BUFFERS).map(tuple),
            TRIPLES,
            st.lists(st.integers(0, 2**32 - 1)).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    st.lists(st.integers(4, 2**40)).map(tuple),
    st.builds(
        Requirements,
        st.integers(1, 1024),
        TRIPLES,
        st.integers(0, 65536),
        st.integers(1, 10),
        st.integers(4, 2**40),
        st.lists(st.sampled_from(["shader-f16", "subgroups"])).map(tuple),
    ),
)
SECONDS = st.floats(0, 1e6)
SAMPLINGS = st.builds(Sampling, give_up_s=st.none() | SECONDS)


@given(PROGRAMS, SECONDS, SAMPLINGS)
def test_a_job_arrives_as_it_was_sent(program: Program, floor_s: float, sampling: Sampling) -> None:
    job = MeasureJob(program, Path("/cases/a b\n.safetensors"), 1e-3, 1e-4, floor_s, sampling)
    line = encode_line(job_to_json(job))
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert job_from_json(decode_line(line)) == job


@given(st.sampled_from(TrialState), st.lists(SECONDS).map(tuple), st.none() | st.floats(allow_nan=False), st.text())
def test_a_measurement_arrives_as_it_was_sent(
    state: TrialState, samples: tuple[float, ...], max_error: float | None, error: str
) -> None:
    sent = Measurement(state, samples, "timestamp", 0.1, 0.2, 0.3, max_error, error)
    assert measurement_from_json(decode_line(encode_line(measurement_to_json(sent)))) == sent


def test_an_error_that_is_no_number_arrives_too() -> None:
    sent = Measurement(TrialState.WRONG_RESULT, max_error=math.nan)
    got = measurement_from_json(decode_line(encode_line(measurement_to_json(sent))))
    assert got.max_error is not None and math.isnan(got.max_error)


@pytest.mark.parametrize("line", [b"", b"driver chatter\n", b"[1]\n", b'{"id": 1\n'])
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        decode_line(line)


def test_a_relative_case_is_found_from_another_folder() -> None:
    job = MeasureJob(Program((), (), (), Requirements(1, (1, 1, 1), 0, 0, 4)), Path("case.safetensors"), 0, 0)
    assert Path(job_to_json(job)["case"]).is_absolute()


def test_infinities_and_names_that_are_no_unicode_arrive_too() -> None:
    program = Program((Shader("main", "// \ud800", (1, 1, 1)),), (), (), Requirements(1, (1, 1, 1), 0, 0, 4))
    job = MeasureJob(program, Path("/cases/\udcff"), rtol=math.inf, atol=0.0)
    assert job_from_json(decode_line(encode_line(job_to_json(job)))) == job


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "fine"}, "state: "),
        ({"samples_s": [1.0, True]}, r"samples_s\.1: "),
        ({"samples_s": [math.inf]}, r"samples_s\.0: .* finite"),
        ({"warmup_s": "1"}, "warmup_s: "),
        ({"run_s": -1.0}, "run_s: "),
        ({"max_error": "0"}, "max_error: "),
        ({"timer": "sundial"}, "timer: "),
        ({"colour": "blue"}, "colour: "),
    ],
)
def test_a_measurement_of_another_shape_is_refused_by_the_fields_name(changes: dict[str, object], words: str) -> None:
    good = measurement_to_json(Measurement(TrialState.OK, (1e-3,), "wall", max_error=0.0))
    with pytest.raises(ValueError, match=f"^{words}"):
        measurement_from_json({**good, **changes})


def test_a_job_of_another_shape_is_refused() -> None:
    job = job_to_json(MeasureJob(Program((), (), (), Requirements(1, (1, 1, 1), 0, 0, 4)), Path("case"), 0, 0))
    for changes in ({"program": {}}, {"rtol": "small"}, {"sampling": {"speed": 1}}, {"colour": "blue"}):
        with pytest.raises(ValueError):
            job_from_json({**job, **changes})
