"""The report on compiled programs: shares, bounds, problems and their order; JSON, terminal and page."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console
from synthetic_store import COMPILER, FACTS

from wgtune.devices.offline.chips import CHIPS
from wgtune.reports.compiled import FLOOR, CompiledReport, Problem, compiled_report
from wgtune.reports.frames import compiled_frame
from wgtune.reports.html.compiled_page import compiled_page
from wgtune.reports.tables import print_report
from wgtune.support.shader_facts import ShaderFacts
from wgtune.tuner.compiled.facts import Facts
from wgtune.tuner.compiled.kernel_program import KernelProgram

NAVI21, GFX1100 = CHIPS[2:]


def kernel(name: str, flops: float | None, launches: dict[str, int], *shaders: str, **more) -> KernelProgram:
    return KernelProgram(name, f"id of {name}", launches, flops, dict.fromkeys(shaders), **more)


def hot(instructions: int, multiply_adds: int, **more: int) -> ShaderFacts:
    return replace(FACTS, hot_instructions=instructions, hot_multiply_adds=multiply_adds, **more)


def report(programs: list[KernelProgram], known: dict[str, ShaderFacts], **more) -> CompiledReport:
    facts = Facts(COMPILER, {(digest, NAVI21.key): one for digest, one in known.items()}, **more)
    return compiled_report("Untuned programs of a test", 20, programs, [NAVI21], facts)


MATMUL = kernel("matmul_add_11111111", 3e9, {"unet": 10}, "m")
CONV = kernel("conv2d_22222222", 1e9, {"unet": 10, "vae": 20}, "c0", "c1")
SOFTMAX = kernel("softmax_33333333", 5e9, {"unet": 10}, "s")
KNOWN = {"m": hot(200, 150), "c0": hot(10, 0), "c1": hot(400, 100), "s": hot(50, 1)}


def bounds(made: CompiledReport) -> dict[str, tuple]:
    return {bound.stage: (bound.share, bound.low, bound.unknown, bound.spilling) for bound in made.bounds}


def test_the_bound_is_the_harmonic_mean_by_flops_over_products_alone() -> None:
    found = bounds(report([MATMUL, CONV, SOFTMAX], KNOWN))
    # 30 GFLOP at 0.75 and 10 at 0.25 in the UNet; 20 more at 0.25 in the VAE. A softmax is no product.
    assert found["unet"] == (pytest.approx(40 / (30 / 0.75 + 10 / 0.25)), 0.0, 0.0, 0)
    assert found["vae"] == (pytest.approx(0.25), 0.0, 0.0, 0)
    assert found["image"][0] == pytest.approx(60 / (30 / 0.75 + 30 / 0.25))


def test_the_shader_with_most_multiply_adds_gives_a_kernels_share() -> None:
    (row,) = report([CONV], KNOWN).rows
    assert row.chips[0].share == 0.25
    (row,) = report([CONV], {"c0": hot(10, 9), "c1": hot(400, 100)}).rows
    assert row.chips[0].share == 0.25, "not the largest share, but the largest number"


def test_low_shares_have_a_floor_and_are_counted() -> None:
    made = report([MATMUL, CONV], {**KNOWN, "c1": hot(400, 0)})
    share, low, _, _ = bounds(made)["unet"]
    assert share == pytest.approx(40 / (30 / 0.75 + 10 / FLOOR)) and low == pytest.approx(0.25)


def test_kernels_without_facts_are_unknown_and_do_not_count_as_slow() -> None:
    failing = kernel("matmul_44444444", 5e9, {"unet": 10}, problem="the program does not fit tier default: x")
    made = report([MATMUL, failing], {"m": KNOWN["m"]})
    assert bounds(made)["unet"][:3] == (pytest.approx(0.75), 0.0, pytest.approx(50 / 80))
    assert any("--tier desktop" in sentence for sentence in made.sentences())


def test_spills_of_any_kernel_are_counted() -> None:
    made = report([MATMUL, SOFTMAX], {**KNOWN, "s": hot(50, 1, spilled_vgprs=3, spilled_sgprs=2)})
    assert bounds(made)["unet"][3] == 1 and bounds(made)["image"][3] == 1
    assert made.lines[0][0] is SOFTMAX and made.table()[0]["problems"] == "spills 5 registers"


def test_problems_come_first_the_worst_of_them_at_the_top() -> None:
    heavy = kernel("matmul_55555555", 9e9, {"unet": 10}, "h")
    few = kernel("matmul_66666666", 1e6, {"unet": 1}, "f")
    light = kernel("matmul_77777777", 1e3, {"unet": 1}, "l")
    lost = kernel("conv2d_88888888", 1e3, {"unet": 1}, "x")
    none = kernel("conv2d_99999999", 1e3, {"unet": 1}, problem="no")
    others = [kernel(f"matmul_{n:08d}", 1e8, {"unet": 1}, "m") for n in range(18)]
    made = report(
        [light, heavy, few, SOFTMAX, lost, none, *others],
        {**KNOWN, "h": hot(100, 20), "f": hot(100, 90, waves=4), "l": hot(100, 2), "s": hot(9, 0, spilled_vgprs=1)},
        errors={("x", NAVI21.key): "navi21: the driver was ended by SIGSEGV"},
    )
    problems = [(program.name, list(one.problems)) for program, one, _ in made.lines if one.problems]
    assert problems == [
        (none.name, [Problem.NO_PROGRAM]),
        (lost.name, [Problem.NOT_COMPILED]),
        (SOFTMAX.name, [Problem.SPILLS]),
        (heavy.name, [Problem.LOW_SHARE]),
        (few.name, [Problem.FEW_WAVES]),
    ], "a low share is a problem of the 20 heaviest products alone"
    assert f"1 kernel not compiled: {lost.name}: navi21: the driver was ended by SIGSEGV." in made.sentences()
    rest = [part for _, one, part in made.lines if not one.problems and part is not None]
    assert rest == sorted(rest, reverse=True)


def test_the_parts_of_the_bound_add_up() -> None:
    made = report([MATMUL, CONV, SOFTMAX], KNOWN)
    parts = {program.name: part for program, _, part in made.lines}
    assert sum(parts.values()) == pytest.approx(1) and parts[SOFTMAX.name] == 0
    assert parts[CONV.name] == pytest.approx((30 / 0.25) / (30 / 0.75 + 30 / 0.25))


def test_the_shader_before_counts_where_a_bundle_shares_it() -> None:
    epilogue = kernel("matmul_add_11111111", 3e9, {"unet": 10}, "e", before="m")
    assert report([epilogue], {"e": hot(10, 1), "m": KNOWN["m"]}).rows[0].chips[0].share == 0.75
    assert report([epilogue], {"e": hot(100, 50), "m": KNOWN["m"]}).rows[0].chips[0].share == 0.5
    softmax = kernel("softmax_11111111", 3e9, {"unet": 10}, "e", before="m")
    assert report([softmax], {"e": hot(10, 1), "m": KNOWN["m"]}).rows[0].chips[0].share == 0.1


def test_without_flops_there_is_no_bound_and_it_is_said() -> None:
    made = report([kernel("matmul_1", None, {"unet": 10}, "m")], KNOWN)
    assert made.bounds[0].share is None and made.lines[0][2] is None
    assert any("FLOPs are not known" in sentence for sentence in made.sentences())


def test_a_program_that_changed_since_it_was_measured_is_told() -> None:
    made = report([replace(MATMUL, changed=True), CONV], KNOWN)
    assert any(
        sentence.startswith("1 kernel whose schedule makes another program now") for sentence in made.sentences()
    )
    assert [row["changed"] for row in made.to_json()["kernels"]] == [True, False]


def test_without_a_disassembly_there_is_no_share() -> None:
    made = report([MATMUL], {"m": replace(FACTS, hot_instructions=None, hot_multiply_adds=None)})
    assert made.bounds[0].share is None and made.bounds[0].unknown == 1.0
    assert made.table()[0]["vgprs"] == FACTS.vgprs


def test_stored_facts_alone_are_told_as_such() -> None:
    made = report([MATMUL, CONV], {"m": KNOWN["m"]}, problem="there is no Chromium")
    assert any("there is no Chromium" in sentence for sentence in made.sentences())
    assert made.table()[-1]["problems"] == "unknown" or made.table()[0]["problems"] == "unknown"


def test_json_has_every_fact_of_every_shader() -> None:
    console = Console(file=io.StringIO(), width=200)
    print_report(report([MATMUL, CONV], KNOWN), json=True, console=console)
    data = json.loads(console.file.getvalue())
    assert data["report"] == "compiled" and data["compiler"] == COMPILER
    assert data["chips"] == [{"key": NAVI21.key, "name": "navi21", "architecture": "RDNA 2"}]
    (conv,) = [row for row in data["kernels"] if row["name"] == CONV.name]
    assert conv["stages"] == {"unet": 10, "vae": 20} and conv["flops"] == 1e9 and conv["product"]
    shaders = conv["chips"]["navi21"]["shaders"]
    assert [one["digest"] for one in shaders] == ["c0", "c1"]
    assert {**shaders[1], "digest": None} == {**vars(KNOWN["c1"]), "digest": None}
    assert {bound["stage"] for bound in data["bounds"]} == {"image", "unet", "vae"}


def test_the_terminal_shows_kernels_bounds_and_that_nothing_was_measured() -> None:
    console = Console(file=io.StringIO(), width=200)
    print_report(report([MATMUL, CONV], KNOWN), json=False, console=console, limit=1)
    text = console.file.getvalue()
    assert "and 1 more row: --limit 2 shows all" in text
    assert "no time was measured" in text and COMPILER in text and "navi21: an image reaches at most" in text


def test_two_chips_are_two_rows() -> None:
    facts = Facts(COMPILER, {("m", NAVI21.key): KNOWN["m"], ("m", GFX1100.key): hot(200, 120)})
    made = compiled_report("x", 20, [MATMUL], [NAVI21, GFX1100], facts)
    assert [(row["chip"], row["share"]) for row in made.table()] == [("navi21", 0.75), ("gfx1100", 0.6)]
    assert [(b.chip, b.stage) for b in made.bounds] == [
        (chip, stage) for chip in ("navi21", "gfx1100") for stage in ("image", "unet")
    ]


def test_a_frame_has_a_row_for_each_kernel_and_chip() -> None:
    frame = compiled_frame(report([MATMUL, CONV], KNOWN))
    assert frame.loc[(MATMUL.name, "navi21"), "share"] == 0.75 and len(frame) == 2
    assert frame.attrs == {"subject": "Untuned programs of a test", "compiler": COMPILER, "steps": 20}


def test_the_page_escapes_names_and_shows_the_bound() -> None:
    hostile = kernel("matmul_<script>alert(1)</script>", 3e9, {"unet": 10}, "m")
    page = compiled_page(report([hostile, CONV], KNOWN))
    assert "<script>alert" not in page and "&lt;script&gt;" in page.replace("<wbr>", "")
    assert "no time was measured" in page and "navi21, unet" in page
    assert "Content-Security-Policy" in page and "http://" not in page and "https://" not in page
