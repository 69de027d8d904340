import re

import pytest
from wgpu.backends.wgpu_native import ffi

from wgtune.devices.webgpu.c_types import use_quick_lookups

TYPES = ["WGPULimits", "WGPULimits *", "WGPUBindGroupEntry[]", "WGPUBufferUsage *", "char []", "uint32_t [3]"]
CALLBACK = "void(WGPUDevice const *, WGPUErrorType, WGPUStringView, void *, void *)"


@pytest.mark.parametrize("name", [*TYPES, CALLBACK])
def test_types_are_those_that_cffi_finds(name: str) -> None:
    parser = ffi._parser
    expected = type(parser).parse_type(parser, name)
    use_quick_lookups()
    use_quick_lookups()  # again, which changes nothing
    assert parser.parse_type(name) == expected
    assert "typedef WGPUAdapter" in parser._declarations


def test_only_the_names_of_the_type_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    use_quick_lookups()
    parsed: list[set[str]] = []

    def parse(parser: object, source: str) -> object:
        parsed.append(set(parser._declarations))  # type: ignore[attr-defined]
        raise ValueError(source)

    monkeypatch.setattr(type(ffi._parser), "_parse", parse)
    with pytest.raises(ValueError, match=re.escape("WGPULimits *")):
        ffi._parser.parse_type("WGPULimits *")
    assert parsed == [{"typedef WGPULimits", "struct WGPULimits"}]
    assert "typedef WGPUAdapter" in ffi._parser._declarations


def test_an_unknown_type_is_refused() -> None:
    use_quick_lookups()
    with pytest.raises(Exception, match="unknown identifier"):
        ffi._parser.parse_type("WGPUNothing")
