"""Tests of what surrounds the code: pages, dependencies, imports, examples, measurements."""
