"""The room of MySQL and MariaDB: everything that knows them, behind the protocols in `sources.protocols`."""
