"""The way to a source: which hosts are allowed, pools of connections, and noticing that bytes come.

Must not know what is sent over a connection.
"""

from starbase_data_replication.sources.network import allowed_hosts
from starbase_data_replication.sources.network.activity import HEARD
from starbase_data_replication.sources.network.allowed_hosts import CheckedLoop, Reach
from starbase_data_replication.sources.network.pool import Pool

__all__ = ["HEARD", "CheckedLoop", "Pool", "Reach", "allowed_hosts"]
