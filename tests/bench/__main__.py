"""`make bench`: each benchmark prints its ratios, measured in one run. `make bench-model`: SD 1.5 at full size.

`python -m tests.bench NAME …` runs only those named: overhead (4 minutes), scale (5 minutes), compiled (3 minutes),
search (6 minutes), whole (1 minute), page (4 minutes, 4 GiB of memory and 8 GiB of disk); when named: model
(10 minutes, 8 GiB of disk), full_size (15 minutes, 16 GiB of memory, 10 GiB of disk).
"""

from __future__ import annotations

import argparse
import os
import tempfile

from rich.console import Console

NAMES = ("overhead", "scale", "compiled", "search", "whole", "page")
NAMED = (*NAMES, "model", "full_size")


def main() -> None:
    """Run the benchmarks named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMED)}; without, the first {len(NAMES)}")
    parser.add_argument("--json", action="store_true", help="print JSON where the benchmark has it (scale)")
    parser.add_argument("--trials", type=int, help="search: trials per kernel, cold")
    parser.add_argument("--operators", nargs="+", help="search: beginnings of kernels' names, such as conv2d_add")
    parser.add_argument("--shards", type=int, help="page: shards of 64 MiB in the bundle")
    parser.add_argument("--size", type=int, help="full_size: pixels of an edge")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMED):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    names = arguments.names or NAMES
    with tempfile.TemporaryDirectory(prefix="bench-cache-") as cache:
        # References and captures are part of what is measured: start without any.
        os.environ["WGTUNE_CACHE"] = cache
        if "overhead" in names:
            from . import overhead

            overhead.run(Console())
        if "scale" in names:
            from . import scale

            scale.run(Console(), json_output=arguments.json)
        if "compiled" in names:
            from . import compiled

            compiled.run(Console())
        if "search" in names:
            from . import search

            search.run(Console(), arguments.trials or search.TRIALS, arguments.operators or search.OPERATORS)
        if "whole" in names:
            from . import whole

            whole.run(Console())
        if "page" in names:
            from . import page

            page.run(Console(), arguments.shards or page.SHARDS)
        if "model" in names:
            from . import model

            model.run(Console())
        if "full_size" in names:
            from . import full_size

            full_size.run(Console(), arguments.size or full_size.SIZE)


if __name__ == "__main__":
    main()
