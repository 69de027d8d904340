"""One table of good and bad documents, read here and by the page's tests: Python and the page refuse the same ones.

`verdicts.json` holds, for every place of a sound document and every value of a list, whether the document is still
sound with that value in that place. Write it anew with this file as a program after a change of
the format, and read what has changed.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from folders import REPOSITORY, TESTS

from wgtune.build.format.json_schema import schema_files
from wgtune.build.format.manifest import Manifest
from wgtune.build.format.plan import Plan
from wgtune.support.errors import BundleError

TABLE = TESTS / "data" / "bundle_format"
READERS = {"manifest": Manifest.from_json, "plan": Plan.from_json}
# Not 1.0: JSON.parse returns the same number for it as for 1.
VALUES = [
    *(None, True, False, "", "false", "12", "a/b"),
    *(-1, 0, 1, 3, 12, 256, 512, 4294967295, 4294967296, 9007199254740991, 9007199254740992, 10**30, 1.5, -0.5),
    *([], [1], [0, 256, 16], [1, 2, 3], [1, 2, 3, 4], [1, 2, "3"], ["a"], {}, {"a": 1}),
]


def read(name: str) -> Any:
    return json.loads((TABLE / name).read_text())


def places(node: Any, pointer: str = "") -> Iterator[str]:
    """JSON pointers of everything inside ``node``."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, item in items:
        inner = f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"
        yield inner
        yield from places(item, inner)


def changed(document: Any, pointer: str, *value: Any) -> bytes:
    """The document with ``value`` at ``pointer``, or without what is there, as JSON."""
    document = copy.deepcopy(document)
    *path, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    node = document
    for part in path:
        node = node[int(part)] if isinstance(node, list) else node[part]
    key = int(last) if isinstance(node, list) else last
    if value:
        node[key] = value[0]
    else:
        del node[key]
    return json.dumps(document).encode().replace(b"Infinity", b"1e400")


def sound(name: str, document: bytes) -> bool:
    try:
        READERS[name](document)
    except BundleError:
        return False
    return True


def verdicts() -> dict[str, Any]:
    """Per place: the numbers of the values that are sound there, and whether it can be left out."""
    table: dict[str, Any] = {"values": VALUES}
    for name in READERS:
        document = read(f"{name}.json")
        table[name] = {
            pointer: {
                "sound": [i for i, value in enumerate(VALUES) if sound(name, changed(document, pointer, value))],
                "optional": sound(name, changed(document, pointer)),
            }
            for pointer in places(document)
        }
    return table


@pytest.mark.parametrize("name", READERS)
def test_the_sound_documents_are_sound(name: str) -> None:
    document = read(f"{name}.json")
    parsed = READERS[name](json.dumps(document).encode())
    assert json.loads(parsed.to_json()) == document


def test_every_value_in_every_place_has_the_verdict_that_the_page_gives() -> None:
    assert verdicts() == read("verdicts.json")


@pytest.mark.parametrize("case", read("cases.json"), ids=lambda case: case["why"])
def test_cases(case: dict[str, Any]) -> None:
    value = [case["value"]] if "value" in case else []
    assert sound(case["document"], changed(read(f"{case['document']}.json"), case["at"], *value)) is case["sound"]


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        ("/image/guidance", "false", "image.guidance: Input should be a valid boolean, not 'false'"),
        ("/image/width", "128", "image.width: Input should be a valid integer, not '128'"),
        ("/programs/0/tuned/kernels", 6.0, r"programs\[0\].tuned.kernels: Input should be a valid integer, not 6.0"),
        ("/image/latent", [4, 8], r"image\.latent\[2\]: Field required"),
        ("/files/plan.json/bytes", None, "files.plan.json.bytes: Input should be a valid integer, not None"),
        ("/schedulers/tables/ddim/runs/20", {"offset": 1}, r"runs\.20\.calls: Field required"),
    ],
)
def test_the_field_is_named(at: str, value: Any, message: str) -> None:
    with pytest.raises(BundleError, match=f"manifest.json is damaged: .*{message}"):
        Manifest.from_json(changed(read("manifest.json"), at, value))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_lacks_are_refused(text: str) -> None:
    data = json.dumps(read("manifest.json")).replace("0.25", text).encode()
    with pytest.raises(BundleError, match=r"manifest\.json is not JSON"):
        Manifest.from_json(data)


def test_a_scheduler_configuration_may_hold_numbers_that_json_lacks() -> None:
    """diffusers writes ``"lambda_min_clipped": -Infinity`` into the configuration of DPMSolverMultistepScheduler."""
    manifest = Manifest.from_json(json.dumps(read("manifest.json")).encode())
    config = {"lambda_min_clipped": -math.inf, "nested": {"sigmas": [math.inf, 1.0, "linear"]}}
    written = replace(manifest, schedulers=replace(manifest.schedulers, config=config)).to_json()
    assert b'"lambda_min_clipped":"-Infinity"' in written
    assert Manifest.from_json(written).schedulers.config == config


@pytest.mark.parametrize("name", schema_files())
def test_the_committed_schemas_are_those_of_the_types(name: str) -> None:
    """After a change: ``python -m wgtune.build.format.json_schema web/src/generated``, then `npm run generate`."""
    assert (REPOSITORY / "web" / "src" / "generated" / name).read_text() == schema_files()[name]


if __name__ == "__main__":
    lines = ["{", f'  "values": {json.dumps(VALUES)},']
    for name, rows in list(verdicts().items())[1:]:
        lines += [f'  "{name}": {{']
        lines += [f"    {json.dumps(pointer)}: {json.dumps(row)}," for pointer, row in rows.items()]
        lines[-1] = lines[-1][:-1]
        lines += ["  },"]
    lines[-1] = "  }"
    (TABLE / "verdicts.json").write_text("\n".join([*lines, "}"]) + "\n")
