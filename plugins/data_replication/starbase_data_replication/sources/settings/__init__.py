"""What all dialects need to read a sourceConfig: connection strings, variables, secrets, names, TLS.

Must not know which keys a dialect has, and must not connect.
"""

from starbase_data_replication.sources.settings import allowed_variables
from starbase_data_replication.sources.settings.allowed_variables import EVERY, Variables
from starbase_data_replication.sources.settings.env_references import (
    has_reference,
    misspelt,
    not_allowed,
    partial_hosts,
    referenced,
    resolve,
)
from starbase_data_replication.sources.settings.names import is_pem, split_name, text_problem
from starbase_data_replication.sources.settings.reader import SettingsReader
from starbase_data_replication.sources.settings.scrubbing import scrub
from starbase_data_replication.sources.settings.secrets import hidden_parts, masked, secrets, unmasked
from starbase_data_replication.sources.settings.settings_schema import (
    masked_by,
    problems_of,
    settings_schema_of,
    with_defaults,
)
from starbase_data_replication.sources.settings.tls import leave_out_dhe, tls_context, using

__all__ = [
    "EVERY",
    "SettingsReader",
    "Variables",
    "allowed_variables",
    "has_reference",
    "hidden_parts",
    "is_pem",
    "leave_out_dhe",
    "masked",
    "masked_by",
    "misspelt",
    "not_allowed",
    "partial_hosts",
    "problems_of",
    "referenced",
    "resolve",
    "scrub",
    "secrets",
    "settings_schema_of",
    "split_name",
    "text_problem",
    "tls_context",
    "unmasked",
    "using",
    "with_defaults",
]
