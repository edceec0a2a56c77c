"""Tests of MySQL and MariaDB as sources."""
