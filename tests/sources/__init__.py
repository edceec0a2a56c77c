"""Tests of what all kinds of source share."""
