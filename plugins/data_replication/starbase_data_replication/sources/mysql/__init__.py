"""MySQL and MariaDB as a dialect: everything that knows them, behind the protocols of `sources`.

The driver is imported with the first source that is opened, not with this package.
"""

from starbase_data_replication.sources.mysql.dialect import MysqlDialect

__all__ = ["MysqlDialect"]
