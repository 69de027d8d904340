"""Facts of compiled shaders: kept once, found by shader, chip and compiler, merged and released like all else."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from sqlalchemy import insert, update
from synthetic_store import (
    CHIP,
    COMPILER,
    CONV,
    FACTS,
    MATMUL,
    add_demo,
    compiled,
    measure,
    ok,
    session,
)

from wgtune.database.exchange.admin import check, info
from wgtune.database.exchange.merge import merge
from wgtune.database.exchange.portable_rows import content_digest
from wgtune.database.exchange.release import manifest_path, write_release
from wgtune.database.queries.compiled_facts import count_facts, keep_facts, known_facts, program_facts, program_shaders
from wgtune.database.queries.layers import SHIPPED, open_layers
from wgtune.database.readonly import opened
from wgtune.database.schema.rows import compiled_shader
from wgtune.database.store import Store
from wgtune.support.errors import DatabaseError
from wgtune.support.hashing import digest_of

A, B, C = map(digest_of, "abc")
OTHER_CHIP = "compile-only:radv-vega10"


def test_facts_are_found_by_shader_chip_and_compiler(any_store: Store) -> None:
    older = compiled("a", compiler="an older one", vgprs=99)
    keep_facts(any_store, [compiled("a"), compiled("b"), older, compiled("a", chip=OTHER_CHIP, waves=5)])
    assert known_facts(any_store, [A], [CHIP], COMPILER) == [compiled("a")]
    assert {one.compiler for one in known_facts(any_store, [A, B], [CHIP])} == {COMPILER, "an older one"}
    assert [one.facts.waves for one in known_facts(any_store, [A, B], [OTHER_CHIP])] == [5]
    assert known_facts(any_store, [C], [CHIP]) == []
    with any_store.reading() as connection:
        assert count_facts(connection) == {COMPILER: {CHIP: 2, OTHER_CHIP: 1}, "an older one": {CHIP: 1}}


def test_what_is_known_stays_as_it_is(any_store: Store) -> None:
    keep_facts(any_store, [compiled("a")], {"p": [A, B]})
    keep_facts(any_store, [compiled("a", vgprs=1), compiled("c")], {"p": [A, B], "q": [C]})
    assert [one.facts.vgprs for one in known_facts(any_store, [A], [CHIP])] == [FACTS.vgprs]
    assert program_shaders(any_store, ["p", "q", "r"]) == {"p": (A, B), "q": (C,)}


def test_a_program_has_facts_once_all_its_shaders_have(any_store: Store) -> None:
    keep_facts(any_store, [compiled("a"), compiled("b", vgprs=8)], {"p": [B, A, B], "q": [A, C]})
    found = program_facts(any_store, ["p", "q"], CHIP, COMPILER)
    assert [one.vgprs for one in found["p"]] == [8, FACTS.vgprs, 8]
    assert "q" not in found


def test_facts_without_a_disassembly_have_no_share(any_store: Store) -> None:
    keep_facts(any_store, [compiled("a", hot_instructions=None, hot_multiply_adds=None)])
    assert [one.facts.share for one in known_facts(any_store, [A], [CHIP])] == [None]
    assert FACTS.share == pytest.approx(128 / 226)


def filled(path: Path, facts, programs) -> str:
    with Store.open(str(path)) as store:
        keep_facts(store, facts, programs)
    return str(path)


def test_merging_in_any_order_gives_the_same(tmp_path: Path) -> None:
    sources = [
        filled(tmp_path / "one.db", [compiled("a"), compiled("b")], {"p": [A, B]}),
        filled(tmp_path / "two.db", [compiled("a", vgprs=1)], {"p": [A, B], "q": [C]}),
        filled(tmp_path / "three.db", [compiled("a", vgprs=2), compiled("c", chip=OTHER_CHIP)], {}),
    ]
    digests = set()
    for number, order in enumerate(itertools.permutations(sources)):
        into = str(tmp_path / f"merged{number}.db")
        merge([*order, order[0]], into)
        with Store.open(into) as store:
            digests.add(content_digest(store))
            assert len(known_facts(store, [A, B, C], [CHIP, OTHER_CHIP])) == 3
            assert program_shaders(store, ["p", "q"]) == {"p": (A, B), "q": (C,)}
    assert len(digests) == 1


def test_a_merge_goes_to_and_from_a_server(shared_url: str, tmp_path: Path) -> None:
    source = filled(tmp_path / "one.db", [compiled("a"), compiled("b")], {"p": [A, B]})
    merge([source], shared_url)
    merge([shared_url], str(tmp_path / "back.db"))
    with Store.open(source) as one, Store.open(str(tmp_path / "back.db")) as other:
        assert content_digest(one) == content_digest(other)


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """A database of one tuned kernel, whose program has two shaders, and of facts about other programs."""
    path = tmp_path / "tuned.db"
    with Store.open(str(path)) as store:
        add_demo(store)
        trials = store.begin_session(session())
        measure(store, trials, MATMUL, ok(0.01), "fast")
        measure(store, trials, CONV, ok(0.02), "other")
        programs = {digest_of("fast"): [B, A], "unmeasured": [C]}
        keep_facts(store, [compiled("a"), compiled("b", chip=OTHER_CHIP), compiled("c")], programs)
    return path


def test_a_release_has_the_facts_of_its_own_programs(tuned: Path, tmp_path: Path) -> None:
    with opened(str(tuned)) as reader:
        path, _ = write_release(reader, "lab", tmp_path / "out")
    assert check(str(path)) == []
    with open_layers(str(filled(tmp_path / "own.db", [], {})), releases=[path], shipped=False) as layers:
        assert {one.shader_digest for one in known_facts(layers, [A, B, C], [CHIP, OTHER_CHIP])} == {A, B}
        assert program_shaders(layers, [digest_of("fast"), "unmeasured"]) == {digest_of("fast"): (B, A)}


def test_a_release_without_facts_keeps_its_digest() -> None:
    """The shipped one may have been written before there were any."""
    for path in SHIPPED.glob("*.wgtune.db"):
        with opened(str(path)) as reader:
            assert content_digest(reader) == json.loads(manifest_path(path).read_text())["content"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"vgprs": -1}, "its vgprs are -1"),
        ({"hot_multiply_adds": 300}, "300 multiply-adds of 226 instructions"),
        ({"hot_instructions": None}, "128 multiply-adds of None instructions"),
    ],
)
def test_contradictions_are_found(tuned: Path, tmp_path: Path, values: dict, words: str) -> None:
    with Store.open(str(tuned)) as store, store.writing() as connection:
        connection.execute(update(compiled_shader).where(compiled_shader.c.shader_digest == A).values(**values))
    (problem,) = check(str(tuned))
    assert words in problem and "compiled_shader" in problem
    with Store.open(str(tuned)) as store, pytest.raises(DatabaseError, match=words):
        known_facts(store, [A], [CHIP])
    with pytest.raises(DatabaseError, match=words):
        merge([str(tuned)], str(tmp_path / "merged.db"))


def test_a_text_in_place_of_a_number_is_refused(tuned: Path) -> None:
    with Store.open(str(tuned)) as store, store.writing() as connection:
        connection.exec_driver_sql("UPDATE compiled_shader SET waves = 'many'")
    with Store.open(str(tuned)) as store, pytest.raises(DatabaseError, match="many"):
        known_facts(store, [A], [CHIP])


def test_info_counts_them(tuned: Path) -> None:
    assert info(str(tuned)).compiled == {COMPILER: {CHIP: 2, OTHER_CHIP: 1}}


def test_two_programs_share_a_shader(any_store: Store) -> None:
    with any_store.writing() as connection:
        connection.execute(
            insert(compiled_shader),
            {"shader_digest": A, "compiler": COMPILER, "chip": CHIP, **vars(FACTS)},
        )
    keep_facts(any_store, [compiled("a")], {"p": [A], "q": [A, A]})
    assert len(program_facts(any_store, ["p", "q"], CHIP, COMPILER)["q"]) == 2
