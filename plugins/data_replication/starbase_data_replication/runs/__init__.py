"""Runs: when one is due, one at a time for each name, how it has ended, and who hears of it.

Owns alarms, slots, records and events of runs. Must not know HTTP, the command line, nor what a body of `configure`
may hold.
"""

from starbase_data_replication.runs.active_run import CHANGED, RESET, STOPPED, ActiveRun
from starbase_data_replication.runs.events import Events
from starbase_data_replication.runs.recorder import Recorder
from starbase_data_replication.runs.retention import Retention
from starbase_data_replication.runs.row_counts import RowCounts
from starbase_data_replication.runs.runner import Runner
from starbase_data_replication.runs.scheduler import Scheduler
from starbase_data_replication.runs.slots import Slots
from starbase_data_replication.runs.watchdog import Watchdog

__all__ = [
    "CHANGED",
    "RESET",
    "STOPPED",
    "ActiveRun",
    "Events",
    "Recorder",
    "Retention",
    "RowCounts",
    "Runner",
    "Scheduler",
    "Slots",
    "Watchdog",
]
