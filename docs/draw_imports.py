"""Draw which package imports which, as a Mermaid diagram in docs/architecture.md.

    python docs/draw_imports.py           # write the diagram
    python docs/draw_imports.py --check   # exit with 1 if the diagram is out of date

The graph comes from the code's own imports (grimp, the library behind import-linter), without those for type checkers.
An arrow from A to B means that A imports B. It is left out where A also reaches B through a package drawn between
them (transitive reduction), and into `support`, which every package may import.
"""

from __future__ import annotations

import graphlib
import sys
from pathlib import Path

import grimp

PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "<!-- imports: begin -->\n", "<!-- imports: end -->\n"
FLOORS = ("cli", "build", "reports", "tuner", "devices", "database", "web")
"""Top-level packages in drawing order; `support` is left out."""

Graph = dict[str, set[str]]


def package_imports() -> Graph:
    """Return, for each package, the other packages that its modules import; names without the leading `wgtune.`."""
    modules = grimp.build_graph("wgtune", exclude_type_checking_imports=True, cache_dir=None)
    graph: Graph = {}
    for module in modules.modules:
        importer = _package(module)
        # What a package offers under its own name (its `__init__`) is a re-export, no dependency.
        if importer is None or importer == module.partition(".")[2]:
            continue
        graph.setdefault(importer, set())
        for imported in modules.find_modules_directly_imported_by(module):
            package = _package(imported)
            if package not in (None, importer):
                graph[importer].add(str(package))
    return graph


def _package(module: str) -> str | None:
    """Return the package of a module, None for the root package, `support` and migrations."""
    path = Path(*module.split(".")[1:])
    is_package = (Path(__file__).parents[1] / path).is_dir()
    name = ".".join((path if is_package else path.parent).parts)
    return name if name.split(".")[0] in FLOORS and "migrations" not in name else None


def reduced(graph: Graph) -> Graph:
    """Return the graph without arrows that a longer path implies. Raises graphlib.CycleError for a circle."""
    graphlib.TopologicalSorter(graph).prepare()
    reached: Graph = {}

    def reach(package: str) -> set[str]:
        if package not in reached:
            reached[package] = set().union(*({next_} | reach(next_) for next_ in graph.get(package, ())))
        return reached[package]

    return {
        package: {one for one in imports if not any(one in reach(other) for other in imports - {one})}
        for package, imports in graph.items()
    }


def mermaid(graph: Graph) -> str:
    """Return the diagram: one box per top-level package, its sub-packages inside."""
    lines = ["```mermaid", "flowchart TB"]
    for floor in FLOORS:
        rooms = sorted(package for package in graph if package.split(".")[0] == floor)
        lines.append(f"  subgraph {floor}_[{floor}]")
        lines += [f'    {_node(room)}["{room.partition(".")[2] or room}"]' for room in rooms]
        lines.append("  end")
    for package in sorted(graph):
        lines += [f"  {_node(package)} --> {_node(imported)}" for imported in sorted(graph[package])]
    return "\n".join([*lines, "```"]) + "\n"


def _node(package: str) -> str:
    return package.replace(".", "_")


def main() -> int:
    """Write the diagram, or check it; return the exit status."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    drawn = before + BEGIN + mermaid(reduced(package_imports())) + END + after
    if "--check" in sys.argv:
        if drawn != page:
            print("docs/architecture.md is out of date: run python docs/draw_imports.py", file=sys.stderr)
        return int(drawn != page)
    PAGE.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
