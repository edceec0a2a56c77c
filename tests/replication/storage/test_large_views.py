"""Views that are too large to be prepared, on the thread that writes."""

from __future__ import annotations

import apsw

from starbase_data_replication.storage.sqlite_tables import fitting_views
from tests.support.memory import MEBIBYTE


def test_a_swap_does_not_prepare_views_that_are_too_large() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE base(x)")
    for number in range(12):
        source = f"E{number - 1}" if number else "base"
        connection.execute(f"CREATE VIEW E{number} AS SELECT x+x+x+x AS x FROM {source}")
    apsw.memory_high_water(True)
    before = apsw.memory_used()
    fitting = fitting_views(connection)
    assert {"E0", "E5"} <= fitting.keys()
    assert not {"E10", "E11"} & fitting.keys()
    assert apsw.memory_high_water() - before < 64 * MEBIBYTE
    connection.close()
