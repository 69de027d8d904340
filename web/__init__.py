"""The built web pages, and their HTTP server. The TypeScript sources are in ``src`` and ``lender``.

May import `wgtune.support` only. Reading order:

- `built_pages`: folders of the two built pages, the bundle's page and the measuring page.
- `http_server`: a Tornado server in a thread, for bundles here and for the measuring page in `wgtune.devices.browser`.
- `server`: serves one bundle on this machine.
"""
