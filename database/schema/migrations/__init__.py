"""The schema's history: Alembic's environment, run from the program and never by hand.

A new revision is a new file in ``versions``: the next number, ``down_revision`` the one before. Revisions that were
released never change.
"""
