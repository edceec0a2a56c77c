"""The network to a source: which hosts are allowed, pools of connections, and the activity of a connection.

Must not know what is sent over a connection.
"""

from starbase_data_replication.sources.network import allowed_hosts
from starbase_data_replication.sources.network.activity import ON_ACTIVITY
from starbase_data_replication.sources.network.allowed_hosts import CheckedLoop, HostPolicy
from starbase_data_replication.sources.network.pool import Pool

__all__ = ["ON_ACTIVITY", "CheckedLoop", "HostPolicy", "Pool", "allowed_hosts"]
