"""`wgtune report bundle`: where a bundle's kernels come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...build.format.documents import read_measured, read_provenance
from ...build.format.reader import Bundle
from ...reports.listings.bundle_sources import BundleSources
from ...reports.tables import print_report
from ...support.console import stdout
from ..options import JsonOption, LimitOption, ProgramOption


def report_bundle(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    compute: ProgramOption = None,
    limit: LimitOption = None,
    json: JsonOption = False,
) -> None:
    """Name the record that each kernel of a bundle comes from, and the times that its builder measured."""
    opened = Bundle.open(bundle)
    programs = [one.info for one in opened.programs_of(compute)]
    made = BundleSources(str(bundle), opened.manifest, programs, read_provenance(opened), read_measured(opened))
    print_report(made, json=json, console=stdout(), limit=limit)
