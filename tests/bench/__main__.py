"""`make bench`: each benchmark prints its ratios, measured in one run."""

from __future__ import annotations

import os
import tempfile

from rich.console import Console

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bench-cache-") as cache:
        # References and captures are part of what is measured: start without any.
        os.environ["WGTUNE_CACHE"] = cache
        from . import overhead

        overhead.run(Console())
