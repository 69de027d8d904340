"""Names of samplers, and tables in their files."""

from __future__ import annotations

import numpy as np
import pytest

from wgtune.build.format.manifest import RunInfo
from wgtune.build.format.sampler_tables import (
    Sampler,
    SamplerRun,
    SamplerTable,
    SamplerVariant,
    find_sampler,
    pack_table,
    unpack_run,
)
from wgtune.support.errors import BundleError


def made_run(calls: int, states: int, brownian: bool = False) -> SamplerRun:
    random = np.random.default_rng(calls)
    intervals = random.standard_normal((calls + 1, 2)).astype(np.float32) if brownian else None
    rows = random.standard_normal((calls + 1, states, 2 + states)).astype(np.float32)
    return SamplerRun(np.linspace(999, 1, calls, dtype=np.float32), random.random(calls + 1) < 0.5, rows, intervals)


def test_tables_survive_their_file() -> None:
    runs = {1: made_run(1, 1), 3: made_run(5, 3), 7: made_run(7, 2)}
    data, places = pack_table(SamplerTable(Sampler.HEUN, "Heun", runs))
    numbers = np.frombuffer(data, "<f4")
    assert numbers.size == sum((run.calls + 1) * (2 + run.states * (run.states + 2)) for run in runs.values())
    for steps, run in runs.items():
        again = unpack_run(numbers, places[steps])
        assert np.array_equal(again.timesteps, run.timesteps) and np.array_equal(again.rows, run.rows)
        assert np.array_equal(again.draws, run.draws) and again.draws.dtype == bool
    with pytest.raises(BundleError, match="numbers"):
        unpack_run(numbers, RunInfo(places[7].offset, 8, 2))


def test_tables_may_share_a_file() -> None:
    tables = [
        SamplerTable(Sampler.HEUN, "Heun", {2: made_run(3, 2)}),
        SamplerTable(Sampler.LMS, "LMS", {2: made_run(2, 4), 5: made_run(5, 4)}),
    ]
    first, _ = pack_table(tables[0])
    second, places = pack_table(tables[1], len(first) // 4)
    numbers = np.frombuffer(first + second, "<f4")
    for steps, run in tables[1].runs.items():
        assert np.array_equal(unpack_run(numbers, places[steps]).rows, run.rows)


def test_a_table_may_have_the_times_of_a_motion() -> None:
    runs = {1: made_run(1, 2, True), 2: made_run(3, 2, True)}
    table = SamplerTable(Sampler.DPMPP_SDE, "DPM++ SDE", runs)
    assert table.noise == "brownian"
    data, places = pack_table(table)
    for steps, run in runs.items():
        again = unpack_run(np.frombuffer(data, "<f4"), places[steps], brownian=True)
        assert again.intervals is not None and np.array_equal(again.intervals, run.intervals)
        assert np.array_equal(again.rows, run.rows) and np.array_equal(again.draws, run.draws)


def test_samplers_are_found_by_name_label_and_class() -> None:
    for sampler in Sampler:
        assert find_sampler(sampler.value) is find_sampler(sampler.label) is sampler
        assert find_sampler(sampler.class_name).class_name == sampler.class_name
    assert find_sampler("DPMSolverMultistepScheduler") is Sampler.DPMPP_2M


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("Euler a", Sampler.EULER_A),
        ("euler_ancestral", Sampler.EULER_A),
        ("k_euler_ancestral", Sampler.EULER_A),
        ("DPM++ 2M SDE", Sampler.DPMPP_2M_SDE),
        ("dpmpp_2m", Sampler.DPMPP_2M),
        ("dpmsolver", Sampler.DPMPP_2M),
        ("dpm_2_ancestral", Sampler.DPM2_A),
        ("PLMS", Sampler.PNDM),
    ],
)
def test_names_that_others_use(name: str, sampler: Sampler) -> None:
    assert find_sampler(name) is sampler


@pytest.mark.parametrize(
    ("name", "value", "label"),
    [
        ("DPM++ 2M Karras", "dpmpp-2m-karras", "DPM++ 2M Karras"),
        ("dpmpp_2m_sde_karras", "dpmpp-2m-sde-karras", "DPM++ 2M SDE Karras"),
        ("euler-beta", "euler-beta", "Euler beta"),
        ("Heun exponential", "heun-exponential", "Heun exponential"),
    ],
)
def test_names_with_noise_levels(name: str, value: str, label: str) -> None:
    found = find_sampler(name)
    assert isinstance(found, SamplerVariant) and (found.value, found.label) == (value, label)
    assert find_sampler(value) == find_sampler(label) == found
    for twice in (f"{value}-karras", "karras"):
        with pytest.raises(BundleError, match="no sampler"):
            find_sampler(twice)


def test_an_unknown_sampler_is_told_the_known_ones() -> None:
    with pytest.raises(BundleError, match="no sampler 'restart'") as error:
        find_sampler("restart")
    assert all(s.value in error.value.hint for s in Sampler)
