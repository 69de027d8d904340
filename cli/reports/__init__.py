"""Reports that have a module of their own beside `wgtune.cli.report`.

May import what ``cli`` may. Modules:

- `compiled`: `wgtune report compiled`.
- `search`: `wgtune report search`.
"""
