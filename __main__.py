"""`python -m wgtune` is the command `wgtune`."""

from .cli import main

main()
