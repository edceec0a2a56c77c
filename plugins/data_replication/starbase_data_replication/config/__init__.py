"""What a user may ask for: the fields of `configure`, the check of a body of them, and saving it.

Owns the fields, their checks and their JSON Schema. Must not know how a sync runs, nor any dialect.
"""

from starbase_data_replication.config.checks import NAME
from starbase_data_replication.config.fields import FIELDS
from starbase_data_replication.config.json_schema import WAIT, configure_body, flags_body
from starbase_data_replication.config.needs import check_needs
from starbase_data_replication.config.parse import MAX_UNKNOWN
from starbase_data_replication.config.save import Configuring

__all__ = ["FIELDS", "MAX_UNKNOWN", "NAME", "WAIT", "Configuring", "check_needs", "configure_body", "flags_body"]
