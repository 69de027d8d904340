"""Pages from the templates beside this file: every value is escaped, and a name that is not given is an error."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ...support.errors import WgtuneError

_FOLDER = Path(__file__).parent


def rendered(template: str, **values: Any) -> str:
    """Return the page that a template makes of ``values``; it loads nothing, from nowhere."""
    return _environment().get_template(template).render(style=asset("page.css"), **values)


def asset(name: str) -> Markup:
    """Return the text of a style sheet or script of this package, to be put into a page as it is."""
    return Markup(_FOLDER.joinpath(name).read_text("utf-8"))


def write_text(path: Path, text: str) -> None:
    """Write a page to ``path``. Raises WgtuneError where the file cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as failure:
        raise WgtuneError(f"{path} cannot be written: {failure.strerror}", "name a file in a folder of yours") from None


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(name: str) -> Markup:
    """Return a kernel's name as HTML that may wrap between its words."""
    return Markup(str(escape(name)).replace("_", "_<wbr>"))
