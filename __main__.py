"""`python -m wgtune` is the command `wgtune`."""

from .cli.app import main

main()
