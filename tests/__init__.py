"""The tests, in folders that mirror the project. A package, so that they import `tests.support`, what they share."""
