"""WGSL without the branches that TVM writes for conditions, which some drivers cannot digest.

Padding makes a convolution choose between a value and zero for every element that it loads. TVM writes each choice as
an ``if`` with short-circuit operators in its condition, and an unrolled schedule has dozens in a row. SwiftShader,
which serves WebGPU in browsers without a GPU, took over 8 GiB and a minute to compile some of them, and 0.4 s without
the branches.
"""

from __future__ import annotations

import re

_CHOICE = re.compile(
    r"var (?P<name>condval\w*) : (?P<type>[\w<>]+);\n"
    r"\s*if \((?P<condition>.*)\) \{\n"
    r"\s*(?P=name) = (?P<yes>.*);\n"
    r"\s*\} else \{\n"
    r"\s*(?P=name) = (?P<no>.*);\n"
    r"\s*\}"
)


def without_branches(source: str) -> str:
    """TVM's WGSL ``source`` with conditional values as ``select`` and conditions as ``&`` and ``|``.

    Both evaluate everything, which changes no result: TVM's operands have no side effects and stand in parentheses, and
    a load beyond its buffer, which the condition kept from happening, is harmless in WebGPU (W3C WGSL, "Out-of-bounds
    access") and its value is not selected. A choice with statements of its own in a branch stays as it is.
    """
    source = source.replace("&&", "&").replace("||", "|")
    return _CHOICE.sub(r"let \g<name> : \g<type> = select(\g<no>, \g<yes>, \g<condition>);", source)
