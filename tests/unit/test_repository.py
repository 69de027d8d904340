"""The repository's own rules: packages that are shipped, sizes, docstrings, and a drawing that is up to date."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from folders import REPOSITORY, TESTS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDERS = ("build", "cli", "database", "devices", "reports", "support", "tuner", "web")
PACKAGES = sorted(path.parent for folder in FOLDERS for path in (REPOSITORY / folder).rglob("__init__.py"))
PACKAGES = [package for package in PACKAGES if "node_modules" not in package.parts]
MODULES = sorted(module for package in PACKAGES for module in package.glob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(("wgtune", *path.relative_to(REPOSITORY).with_suffix("").parts))


def test_every_package_is_shipped() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert sorted(settings["tool"]["setuptools"]["packages"]) == sorted(["wgtune", *map(name_of, PACKAGES)])


def test_every_package_data_pattern_matches_a_file() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    for package, patterns in settings["tool"]["setuptools"]["package-data"].items():
        folder = REPOSITORY.joinpath(*package.split(".")[1:])
        for pattern in patterns:
            assert any(folder.glob(pattern)), (package, pattern)


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {
        path.parent
        for folder in FOLDERS
        for path in (REPOSITORY / folder).rglob("*.py")
        if "node_modules" not in path.parts
    }
    assert sorted(folders) == PACKAGES


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_a_package_has_at_most_14_modules_and_says_what_it_is(package: Path) -> None:
    modules = [path for path in package.glob("*.py") if path.stem != "__init__" and not path.stem[0].isdigit()]
    assert len(modules) <= 14
    described = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert len(described) > 40
    if len(modules) > 2 and package.parent != REPOSITORY:
        missing = [module.stem for module in modules if f"`{module.stem}`" not in described]
        assert not missing, f"the reading order of {name_of(package)} lacks {missing}"


def test_modules_have_at_most_400_lines() -> None:
    lengths = {name_of(module): len(module.read_text(encoding="utf-8").splitlines()) for module in MODULES}
    assert not {name: lines for name, lines in lengths.items() if lines > 400}


def test_no_two_test_modules_share_a_name() -> None:
    """pytest imports them by name."""
    names = [path.name for path in TESTS.rglob("test_*.py")]
    assert not {name for name in names if names.count(name) > 1}


def test_the_drawing_of_the_imports_is_up_to_date() -> None:
    pytest.importorskip("grimp", reason="import-linter needs Python 3.11")
    done = subprocess.run(
        [sys.executable, REPOSITORY / "docs" / "draw_imports.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
