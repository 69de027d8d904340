"""A session is named by its number in one database, or by the uid that it has in all."""

from __future__ import annotations

import pytest
from synthetic_store import session

from wgtune.database.queries.trial_details import session_number
from wgtune.database.store import Store
from wgtune.support.errors import UsageError


def test_a_number_a_uid_and_the_beginning_of_one_name_a_session() -> None:
    with Store.memory() as store:
        numbers = [store.begin_session(session()) for _ in range(3)]
        for kept in store.sessions():
            for name in (str(kept.session_id), kept.uid, kept.uid.upper(), kept.uid[:12]):
                assert session_number(store, name) == kept.session_id
        assert sorted(numbers) == [1, 2, 3]


@pytest.mark.parametrize("name", ["4", "0", "-1", "abcde", "f" * 33, "%%%%%%", "9" * 40, ""])
def test_what_names_no_session_is_refused(name: str) -> None:
    with Store.memory() as store:
        store.begin_session(session())
        with pytest.raises(UsageError, match="has no session"):
            session_number(store, name)
