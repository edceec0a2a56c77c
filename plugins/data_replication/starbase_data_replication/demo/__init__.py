"""What `starbase demo` needs beyond the plugin itself: a source server that comes from a wheel.

Must not know the rest of the plugin: it calls the host as a user does.
"""

from starbase_data_replication.demo.shop import run

__all__ = ["run"]
