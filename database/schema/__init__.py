"""Tables, column types, plain records, engines and migrations.

May import ``support`` only. Reading order:

- `tables`: the schema, as SQLAlchemy declares it.
- `columns`: column types that check values when they are written and read.
- `records`: the dataclasses that the rest of wgtune sees; no SQL.
- `rows`: table objects, and conversions between rows and records.
- `engine`: from a database URL to a SQLAlchemy engine; drivers' exceptions become `DatabaseError`.
- `filesystem`: whether a file lies on a network filesystem.
- `untrusted_file`: checks of a SQLite file's schema before it is used.
- `migrate`, `migrations`: upgrades of older databases by Alembic.
"""
