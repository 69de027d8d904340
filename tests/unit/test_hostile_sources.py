"""Nothing that wgtune reads may run: no source of ours can unpickle, evaluate, or load what does."""

from __future__ import annotations

import ast

import pytest
from folders import REPOSITORY

FOLDERS = ("build", "cli", "database", "devices", "reports", "support", "tuner", "web")
SOURCES = sorted(
    [
        *REPOSITORY.glob("*.py"),
        *(p for folder in FOLDERS for p in (REPOSITORY / folder).rglob("*.py") if "node_modules" not in p.parts),
    ]
)

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle", "yaml"}
HARMLESS = {("pickle", "UnpicklingError")}
"""What torch raises where a file is not what `weights_only` takes."""
BUILTINS = {"eval", "exec", "compile", "__import__"}
"""As calls by these very names; `model.eval()` and `re.compile()` are others."""


def dangers(source: str) -> list[str]:
    """What a source does that can run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = (node.module or "").split(".")[0]
            found += [
                f"{module}.{alias.name}"
                for alias in node.names
                if module in MODULES and (module, alias.name) not in HARMLESS
            ]
        elif isinstance(node, ast.Call):
            found += _calls(node)
    return found


def _calls(node: ast.Call) -> list[str]:
    options = {keyword.arg: keyword.value for keyword in node.keywords}
    name = ast.unparse(node.func)
    if isinstance(node.func, ast.Name) and name in BUILTINS:
        return [name]
    if name == "torch.load" and not _is(options.get("weights_only"), True):
        return ["torch.load without weights_only"]
    if name in ("np.load", "numpy.load") and not _is(options.get("allow_pickle"), False):
        return ["np.load without allow_pickle=False"]
    if name.endswith(("enable_load_extension", "load_extension", "read_pickle", "to_pickle")):
        return [name]
    if _is(options.get("trust_remote_code"), True):
        return ["trust_remote_code"]
    return [f"{name} with a shell"] if _is(options.get("shell"), True) else []


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_source_runs_what_it_reads(path):
    assert dangers(path.read_text("utf-8")) == []


def test_there_are_sources():
    assert len(SOURCES) > 50


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import numpy, cloudpickle as c",
        "from pickle import loads",
        "from dill import load",
        "eval('1')",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "connection.enable_load_extension(True)",
        "pandas.read_pickle(path)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_walk_finds_what_it_looks_for(source):
    assert dangers(source)
