"""Whole databases: merge, release, compare, check, and results of other programs.

May import the other parts of ``database`` except ``tvm``. Reading order:

- `portable_rows`: rows in which names replace ids, so that they are equal in every database; content digests.
- `merge`: copies the content of databases into one, with the same result in any order.
- `release`: writes the fastest verified schedules into a read-only file.
- `diff`: what two databases measured differently.
- `integrity`, `admin`: checks of every row; information, upgrades and repairs.
- `unverified`: times that stock TVM measured, which nobody verified.
- `opaque`: entries of other programs' files that the installed TVM cannot read.
"""
