"""The contract of dialects, as checks for their authors.

A `Sample` is a table that the author provides. Each of `CHECKS` is a coroutine function that takes it, and raises
`NotConforming` with the promise that the dialect breaks. Must not know a dialect, and needs no test framework.
"""

from starbase_data_replication.conformance.promises import Promise
from starbase_data_replication.conformance.sample import NotConforming, Sample, SampleLacks
from starbase_data_replication.conformance.suite import CHECKS, Check, DialectSuite, check_all

__all__ = ["CHECKS", "Check", "DialectSuite", "NotConforming", "Promise", "Sample", "SampleLacks", "check_all"]
