"""Data replication: keeps tables of other databases mirrored in the host's SQLite database.

The facade: everything that a dialect, a transform or a subscriber of another plugin imports. The modules below it may
move. Must not know the plugin's own wiring, which is `plugin.py`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from starbase_data_replication import hooks
from starbase_data_replication.errors import SourceChanged, SourceRejected, SourceUnavailable, SyncError, TableMissing
from starbase_data_replication.facade import DataReplication, ReplicationStatus, RunProgress, RunRecord
from starbase_data_replication.model import (
    EVENT_TYPES,
    NO_AFFINITY,
    Batch,
    Candidate,
    Cast,
    Column,
    HighWatermark,
    OpenTransaction,
    OpenTransactions,
    Options,
    ReplicationEvent,
    Row,
    Rows,
    TableName,
    TableSchema,
    UnrepresentableValues,
    decimal_cast,
    decimal_or_text,
    float_or_text,
    text_or_bytes,
    unsigned,
    whole_or_text,
)
from starbase_data_replication.sources import (
    AHEAD_SECONDS,
    DIGESTS,
    MAX_AHEAD,
    MAX_KEYS,
    MAX_NEWEST,
    MAX_SHARED,
    MAX_SHOWN,
    MD5,
    SHA256,
    Comparable,
    Comparing,
    Dialect,
    Feature,
    HidingColumns,
    Inspectable,
    Inspector,
    Joinable,
    Key,
    Locatable,
    NoTrackingColumn,
    Part,
    Pingable,
    Reader,
    ReadPlan,
    Rewindable,
    Sharing,
    ShowsTransactions,
    Snapshots,
    Source,
    Summary,
)

CONFORMANCE = frozenset({
    "CHECKS", "Check", "DialectSuite", "NotConforming", "Promise", "Sample", "SampleLacks", "check_all",
})  # fmt: skip

if TYPE_CHECKING:
    from starbase_data_replication.conformance import (
        CHECKS,
        Check,
        DialectSuite,
        NotConforming,
        Promise,
        Sample,
        SampleLacks,
        check_all,
    )
else:
    # Hidden from type checkers, which would take any name for one that exists.
    def __getattr__(name: str) -> Any:
        """What checks a dialect is imported when it is first asked for: only tests need it."""
        if name in CONFORMANCE:
            return getattr(import_module(f"{__name__}.conformance"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AHEAD_SECONDS",
    "CHECKS",
    "DIGESTS",
    "EVENT_TYPES",
    "MAX_AHEAD",
    "MAX_KEYS",
    "MAX_NEWEST",
    "MAX_SHARED",
    "MAX_SHOWN",
    "MD5",
    "NO_AFFINITY",
    "SHA256",
    "Batch",
    "Candidate",
    "Cast",
    "Check",
    "Column",
    "Comparable",
    "Comparing",
    "DataReplication",
    "Dialect",
    "DialectSuite",
    "Feature",
    "HidingColumns",
    "HighWatermark",
    "Inspectable",
    "Inspector",
    "Joinable",
    "Key",
    "Locatable",
    "NoTrackingColumn",
    "NotConforming",
    "OpenTransaction",
    "OpenTransactions",
    "Options",
    "Part",
    "Pingable",
    "Promise",
    "ReadPlan",
    "Reader",
    "ReplicationEvent",
    "ReplicationStatus",
    "Rewindable",
    "Row",
    "Rows",
    "RunProgress",
    "RunRecord",
    "Sample",
    "SampleLacks",
    "Sharing",
    "ShowsTransactions",
    "Snapshots",
    "Source",
    "SourceChanged",
    "SourceRejected",
    "SourceUnavailable",
    "Summary",
    "SyncError",
    "TableMissing",
    "TableName",
    "TableSchema",
    "UnrepresentableValues",
    "check_all",
    "decimal_cast",
    "decimal_or_text",
    "float_or_text",
    "hooks",
    "text_or_bytes",
    "unsigned",
    "whole_or_text",
]
