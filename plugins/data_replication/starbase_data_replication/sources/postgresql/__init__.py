"""PostgreSQL as a dialect: everything that knows it, behind the protocols of `sources`.

The driver is imported with the first source that is opened, not with this package.
"""

from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect

__all__ = ["PostgresqlDialect"]
