"""TVM's conditions in WGSL, rewritten without control flow."""

from __future__ import annotations

from wgtune.tuner.codegen.wgsl import without_branches

CHOICE = """\
    var condval : f32;
    if (((1i <= x) && (x < 9i))) {
      condval = a[(x - 1i)];
} else {
      condval = 0.0f;
}
    b[x] = condval;
"""
NESTED = """\
    var condval : f32;
    if ((x < 9i)) {
    var condval_1 : vec4<f32>;
    if ((x < 5i)) {
      condval_1 = a[x];
} else {
      condval_1 = c[x];
}
      condval = condval_1.x;
} else {
      condval = 0.0f;
}
"""


def test_a_choice_becomes_a_select() -> None:
    assert without_branches(CHOICE) == (
        "    let condval : f32 = select(0.0f, a[(x - 1i)], ((1i <= x) & (x < 9i)));\n    b[x] = condval;\n"
    )


def test_of_nested_choices_the_inner_one_does_and_the_outer_one_stays() -> None:
    text = without_branches(NESTED)
    assert "let condval_1 : vec4<f32> = select(c[x], a[x], (x < 5i));" in text
    assert "if ((x < 9i)) {" in text and "condval = condval_1.x;" in text


def test_other_branches_stay() -> None:
    text = "  if (i < 3i) {\n    b[i] = 1.0f;\n  }\n"
    assert without_branches(text) == text
