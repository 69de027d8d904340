"""SHA-256 of the code behind what is cached: a module, and all modules of wgtune that it imports.

The imports are read from the sources, so nothing is imported for it: a digest takes some 25 ms, once per process.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[2]
"""The folder of the package ``wgtune``."""


@functools.cache
def code_digest(module: str) -> str:
    """Return the SHA-256 of the sources of ``module`` and of what it imports, independent of where wgtune lies.

    Args:
        module: full name, such as ``wgtune.tuner.capture.model_capture``.
    """
    digest = hashlib.sha256()
    for name, source in sorted(import_closure(module).items()):
        digest.update(f"{name} {len(source)}\n{source}".encode())
    return digest.hexdigest()


def import_closure(module: str) -> dict[str, str]:
    """Return the sources, by full name, of ``module`` and of all modules of wgtune that it imports directly or not.

    Imports within functions count, those for type checking only do not. The ``__init__`` of a package counts only where
    it is imported by name: that of a module's own package shapes nothing.
    """
    sources: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _path(name)
        if path is None or name in sources:
            continue
        sources[name] = path.read_text(encoding="utf-8")
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += _imported(ast.parse(sources[name]), package)
    return sources


def _path(module: str) -> Path | None:
    """The file of a module of wgtune; None for any other name."""
    package, *parts = module.split(".")
    if package != "wgtune":
        return None
    base = _ROOT.joinpath(*parts)
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """The full names that the statements within ``tree``, of a module of ``package``, import; some are no modules."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            ancestors = package.split(".")
            above = ancestors[: len(ancestors) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            submodules = [name for name in (f"{source}.{alias.name}" for alias in node.names) if _path(name)]
            yield from submodules or [source]
        elif isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case) and not _is_for_types(node):
            yield from _imported(node, package)


def _is_for_types(node: ast.AST) -> bool:
    """Whether ``node`` is ``if TYPE_CHECKING:`` without an ``else``."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") and not node.orelse
