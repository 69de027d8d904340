"""The built web pages, and a server for bundles. The TypeScript sources are in ``src`` and ``lender``.

May import `wgtune.support` only. Reading order:

- `built_pages`: folders of the two built pages, the bundle's page and the measuring page.
- `server`: HTTP server for one bundle on this machine.
"""
