"""One GPU under all its names: aliases lead to one identity, settle, and never turn in circles unnoticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_store import LLVMPIPE

from wgtune.database import device_identity as identity_module
from wgtune.database.device_identity import Alias, Aliases, Identity, check_alias, resolve, shipped_aliases
from wgtune.database.schema.records import AliasLevel, DeviceInfo
from wgtune.database.store import Store
from wgtune.devices.naming import model_and_architecture, vendor_name
from wgtune.support.errors import UsageError

SHIPPED = Aliases(shipped_aliases())
VENDOR, ARCHITECTURE, MODEL = AliasLevel


def device(vendor: str = "", architecture: str = "", model: str = "") -> DeviceInfo:
    return DeviceInfo("backend:key", "backend", vendor, architecture, model, False)


@pytest.mark.parametrize(
    ("vendor_id", "reported", "expected"),
    [
        (0x10DE, "NVIDIA GeForce RTX 3060/PCIe/SSE2", Identity("nvidia", "ampere", "nvidia geforce rtx 3060")),
        (0x10DE, "NVIDIA H200", Identity("nvidia", "hopper", "nvidia h200")),
        (0x10DE, "NVIDIA L4", Identity("nvidia", "lovelace", "nvidia l4")),
        (0x1002, "AMD Radeon RX 6800 (RADV NAVI21)", Identity("amd", "rdna-2", "amd radeon rx 6800")),
        (0x1002, "AMD Radeon(TM) RX 7900 XTX", Identity("amd", "rdna-3", "amd radeon rx 7900 xtx")),
        (0x8086, "Mesa Intel(R) UHD Graphics 620 (KBL GT2)", Identity("intel", "gen-9", "intel uhd graphics 620")),
        (0x106B, "Apple M2 Pro", Identity("apple", "metal-3", "apple m2 pro")),
        (0x10005, "llvmpipe (LLVM 15.0.6, 256 bits)", Identity("mesa", "software", "llvmpipe")),
        (0x5143, "Adreno (TM) 740", Identity("qualcomm", "adreno-7xx", "adreno 740")),
        (0x13B5, "Mali-G78", Identity("arm", "valhall", "mali-g78")),
    ],
)
def test_what_drivers_report(vendor_id: int, reported: str, expected: Identity) -> None:
    model, architecture = model_and_architecture(reported)
    assert resolve(device(vendor_name(vendor_id, ""), architecture, model), SHIPPED) == expected


@pytest.mark.parametrize(
    ("vendor", "architecture"),
    [("nvidia", "ampere"), ("apple", "metal-3"), ("intel", "gen-12lp"), ("amd", "rdna-3")],
)
def test_a_browser_that_gives_vendor_and_architecture_meets_the_driver(vendor: str, architecture: str) -> None:
    models = {"ampere": "NVIDIA GeForce RTX 3090", "metal-3": "Apple M1", "gen-12lp": "Intel(R) Iris(R) Xe Graphics"}
    native = device(vendor, "", models.get(architecture, "AMD Radeon RX 7600"))
    browser = resolve(device(vendor, architecture), SHIPPED)
    assert browser.same_architecture(resolve(native, SHIPPED))
    assert not browser.same_model(resolve(native, SHIPPED))


def test_unknown_is_like_nothing() -> None:
    nobody = resolve(device("unknown", "", "unknown"), SHIPPED)
    assert nobody == Identity("", "", "")
    assert not nobody.same_model(nobody) and not nobody.same_architecture(nobody) and not nobody.same_vendor(nobody)


def test_shipped_aliases_are_what_a_user_could_have_written() -> None:
    for one in shipped_aliases():
        assert check_alias(one) == one
        name = one.name.removesuffix("*")
        parts = {"vendor": "", "architecture": "", "model": "", one.level.value: name}
        settled = resolve(device(**parts), SHIPPED)
        assert resolve(device(settled.vendor, settled.architecture, settled.model), SHIPPED) == settled
    names = [(one.level, one.name) for one in shipped_aliases()]
    assert len(set(names)) == len(names)


def test_an_architecture_belongs_to_one_vendor() -> None:
    said = {(one.architecture, one.vendor) for one in shipped_aliases() if one.architecture and one.vendor}
    assert len({architecture for architecture, _ in said}) == len(said)


def test_the_longest_beginning_wins_and_a_whole_name_before_it() -> None:
    aliases = Aliases(
        [
            Alias(MODEL, "a*", architecture="short"),
            Alias(MODEL, "a b*", architecture="long"),
            Alias(MODEL, "a b c", architecture="whole"),
        ]
    )
    found = {model: resolve(device(model=model), aliases).architecture for model in ("a", "a x", "a b", "A  B C", "b")}
    assert found == {"a": "short", "a x": "short", "a b": "long", "A  B C": "whole", "b": ""}


def test_chains_end_and_circles_are_told() -> None:
    chain = Aliases([Alias(MODEL, "a", model="b"), Alias(MODEL, "b", model="c", architecture="x")])
    assert resolve(device(model="a"), chain) == Identity("", "x", "c")
    circle = Aliases([Alias(MODEL, "a", model="b"), Alias(MODEL, "b", model="a")])
    with pytest.raises(UsageError, match="circle: a → b → a") as error:
        resolve(device(model="a"), circle)
    assert "db alias" in error.value.hint


NAMES = st.sampled_from(["a", "b", "c", "d", "ab", "abc"])
MAYBE = st.none() | NAMES


@st.composite
def some_alias(draw: st.DrawFn) -> Alias:
    level = draw(st.sampled_from(AliasLevel))
    name = draw(NAMES) + draw(st.sampled_from(["", "*"]))
    return Alias(level, name, draw(MAYBE), draw(MAYBE), draw(MAYBE))


@given(st.lists(some_alias(), max_size=12), MAYBE, MAYBE, MAYBE)
def test_resolving_ends_and_resolving_again_changes_nothing(aliases, vendor, architecture, model) -> None:
    table = Aliases(aliases)
    try:
        settled = resolve(device(vendor or "", architecture or "", model or ""), table)
    except UsageError as error:
        assert "circle" in error.message
        return
    assert resolve(device(settled.vendor, settled.architecture, settled.model), table) == settled


def test_the_users_rows_win(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "x.db")) as store:
        assert store.aliases() == []
        store.add_alias(Alias(MODEL, "NVIDIA  GeForce RTX 3060", architecture="Mine", note="why"))
        store.add_alias(Alias(MODEL, "nvidia geforce rtx 3060", vendor="NVIDIA", architecture="Ours"))
        assert store.aliases() == [Alias(MODEL, "nvidia geforce rtx 3060", vendor="nvidia", architecture="ours")]
        aliases = Aliases([*store.aliases(), *shipped_aliases()])
        gpu = device("nvidia", "", "NVIDIA GeForce RTX 3060")
        assert resolve(gpu, aliases).architecture == "ours"
        assert store.remove_alias(MODEL, "NVIDIA GeForce RTX 3060")
        assert not store.remove_alias(MODEL, "NVIDIA GeForce RTX 3060")
        assert resolve(gpu, Aliases([*store.aliases(), *shipped_aliases()])).architecture == "ampere"


@pytest.mark.parametrize(
    ("alias", "words"),
    [
        (Alias(VENDOR, "x", model="y"), "cannot say the model"),
        (Alias(ARCHITECTURE, "x", model="y"), "cannot say the model"),
        (Alias(MODEL, "x"), "says nothing"),
        (Alias(MODEL, " * ", vendor="v"), "not a name for an alias"),
        (Alias(MODEL, "a*b", vendor="v"), "not a name for an alias"),
    ],
)
def test_what_cannot_be_an_alias(alias: Alias, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_alias(alias)


def test_the_shipped_file_names_its_sources() -> None:
    data = json.loads(identity_module._SHIPPED.read_text("utf-8"))
    assert any("gpu_info.json" in source for source in data["sources"])
    assert len(data["aliases"]) == len(shipped_aliases()) > 100
    assert resolve(LLVMPIPE, SHIPPED).architecture == "software"
