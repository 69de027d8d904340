"""Entry point of the command line, and the table of its commands.

Exit status: 0 done, 1 something failed, 2 wrong usage, 3 no usable device, 4 database, 5 model, 6 bundle,
130 interrupted.
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated, Any

import typer

from ..support.console import show_error, stdout
from ..support.errors import WgtuneError
from ..support.tvm_import import import_tvm_without_torch
from .lazy import CommandGroup, LazyCommand, LazyGroup
from .options import TYPER

COMMANDS: dict[str, LazyCommand | CommandGroup] = {
    "devices": LazyCommand(
        "devices:devices",
        "List the GPUs of this machine that can be tuned, and chips that programs can be compiled for without a GPU.",
        "`wgtune devices --health`",
    ),
    "kernels": LazyCommand(
        "kernels:kernels",
        "List each distinct kernel of a model: what it computes, how often, and its share of the model's work.",
        "`wgtune kernels --model sd-v1-5 --sort gflop --limit 20`",
    ),
    "tune": LazyCommand(
        "tune:tune",
        "Tune a model's kernels on a GPU, or side by side on several.",
        "`wgtune tune --model sd-v1-5 --stage unet --minutes 30`",
    ),
    "agent": LazyCommand(
        "cluster:agent",
        "Lend this machine's devices to `wgtune tune --scheduler`, through a Dask cluster. Ctrl-C ends it.",
        "`wgtune agent --scheduler tcp://tuner.example:8786`",
    ),
    "report": CommandGroup(
        "Report from the database: coverage, latency, search; measure again; compare devices, PyTorch and compilers.",
        {
            "coverage": LazyCommand(
                "report.records:report_coverage",
                "Show which kernels of a model are tuned on a device, and their share of an image's time.",
                "`wgtune report coverage --model sd-v1-5 --html coverage.html`",
            ),
            "latency": LazyCommand(
                "report.records:report_latency",
                "Compare baseline and best record: time per kernel, per stage and per image.",
                "`wgtune report latency --model sd-v1-5 --html latency.html`",
            ),
            "stability": LazyCommand(
                "report.measured:report_stability",
                "Measure the fastest schedules again in rounds, and compare their times and order. Changes no record.",
                "`wgtune report stability --top 10`",
            ),
            "fidelity": LazyCommand(
                "report.measured:report_fidelity",
                "Compare the same schedules on two devices or runtimes: does one predict the other?",
                "`wgtune report fidelity --device vulkan:nvidia-h200 --against browser --measure`",
            ),
            "search": LazyCommand(
                "report.search:report_search",
                "Show the best speed so far against trials, by class of kernels, and trials that a warm search saves.",
                "`wgtune report search --db warm.db --against cold.db --html search.html`",
            ),
            "pytorch": LazyCommand(
                "report.pytorch:report_pytorch",
                "Time the model's stages in PyTorch (eager, torch.compile, TF32 off and on), beside the records of a "
                "device.",
                "`wgtune report pytorch --model sd-v1-5 --torch-device cuda`",
            ),
            "compiled": LazyCommand(
                "report.compiled:report_compiled",
                "Compile programs for GPUs that are not here: registers, spills, and how near their peak they could "
                "come.",
                "`wgtune report compiled --model sd-v1-5 --chip navi21,gfx1100`",
            ),
            "bundle": LazyCommand(
                "report.bundle:report_bundle",
                "Name the record that each kernel of a bundle comes from, and the times that its builder measured.",
                "`wgtune report bundle dist/`",
            ),
        },
    ),
    "build": LazyCommand(
        "build:build",
        "Build a bundle from the best verified records of a device.",
        "`wgtune build --model ./my-model --device vulkan:nvidia-h200 -o dist/`",
    ),
    "generate": LazyCommand(
        "generate:generate",
        "Draw a picture, or one for each line of a file, natively with the shaders of a bundle.",
        '`wgtune generate --bundle dist/ --prompt "a lighthouse at dusk" --seed 7 --steps 20 -o out.png`, '
        "or `wgtune generate --bundle dist/ --prompts prompts.txt --device all -o pictures/`",
    ),
    "web": LazyCommand(
        "web:web", "Serve a bundle on this machine only, for your browser. Ctrl-C ends it.", "`wgtune web dist/`"
    ),
    "demo": LazyCommand(
        "demo.command:demo",
        "Make a small model, tune it, report, build a bundle and draw a picture. Run it again to continue.",
        "`wgtune demo --minutes 2`",
    ),
    "db": CommandGroup(
        "Look after the database of trials.",
        {
            "info": LazyCommand(
                "database:db_info",
                "Show size, schema, sessions, trials by device and state, and how many schedules TVM still applies.",
                "`wgtune db info --db lab.db`",
            ),
            "upgrade": LazyCommand(
                "database:db_upgrade",
                "Upgrade a database of an older wgtune to the schema of this one.",
                "`wgtune db upgrade --db old.db`",
            ),
            "check": LazyCommand(
                "database:db_check",
                "Check every value of a database. Exits with 4 if one is damaged.",
                "`wgtune db check`",
            ),
            "replay": LazyCommand(
                "database:db_replay",
                "Replay every stored schedule with the installed TVM; those that fail are marked stale, and not used.",
                "`wgtune db replay`, after an upgrade of TVM",
            ),
            "merge": LazyCommand(
                "database:db_merge",
                "Merge databases. No trial is lost, and any order or repetition gives the same result.",
                "`wgtune db merge laptop.db desktop.db --into lab.db`",
            ),
            "release": LazyCommand(
                "database:db_release",
                "Write the best records and baselines as one small read-only file, with a manifest and a page beside "
                "it.",
                "`wgtune db release 2026.11 --top 3 -o releases/`",
            ),
            "diff": LazyCommand(
                "database:db_diff",
                "Compare two databases kernel by kernel: covered or lost, faster, slower, stale, unverified.",
                "`wgtune db diff 2026.10.wgtune.db lab.db`",
            ),
            "export": LazyCommand(
                "database:db_export",
                "Write a device's schedules as the two JSON files that stock MetaSchedule reads.",
                "`wgtune db export --device vulkan:llvmpipe -o tuned/`",
            ),
            "import": LazyCommand(
                "database:db_import",
                "Add schedules that stock MetaSchedule tuned, as unverified trials. Exits with 130 after Ctrl-C.",
                "`wgtune db import log_db/ --device metal:apple-m1-pro`",
            ),
            "show": LazyCommand(
                "database:db_show",
                "Show all stored values of a session or of one of its trials: samples, seed, trace, needs, error.",
                "`wgtune db show 3`, or `wgtune db show 3 17` for its 17th trial",
            ),
            "alias": CommandGroup(
                "Look after aliases: the names that drivers and browsers give to one GPU.",
                {
                    "list": LazyCommand(
                        "database:alias_list",
                        "List the aliases: your own, then those that come with wgtune.",
                        "`wgtune db alias list`",
                    ),
                    "add": LazyCommand(
                        "database:alias_add",
                        "Map a reported GPU name to vendor, architecture or model.",
                        "`wgtune db alias add 'NVIDIA GeForce RTX 3060*' --architecture ampere`",
                    ),
                    "remove": LazyCommand(
                        "database:alias_remove",
                        "Remove one of your own aliases. Those that come with wgtune stay: add one of the same name to "
                        "override.",
                        "`wgtune db alias remove 'NVIDIA GeForce RTX 3060*'`",
                    ),
                },
            ),
        },
    ),
}


class _Program(LazyGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(COMMANDS, **settings)


app = typer.Typer(
    name="wgtune",
    help="Tune every GPU kernel of a Stable Diffusion model, keep what is learned, build what a browser draws with.",
    pretty_exceptions_enable=False,
    cls=_Program,
    **TYPER,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        stdout().print(f"wgtune {metadata.version('wgtune')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Run the command line; print a WgtuneError with its hint, and exit with its status."""
    import_tvm_without_torch()
    try:
        app()
    except WgtuneError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
