"""Live displays of running tuning sessions, and the summaries printed at their end.

May import `wgtune.support`, the enumerations of `wgtune.database.schema.records`, and the plain data that sessions and
fleets report: `wgtune.tuner.session.events` and `wgtune.tuner.fleet.listener`. Nothing here reads a database.

Reading order:

- `model`: the state of one session, put together from its events; no terminal.
- `session`: the display of one session.
- `fleet`: the display of sessions on several devices.
"""
