"""The package //tests/matrix: tests that run in cells. It bounds which conftest.py they share."""
