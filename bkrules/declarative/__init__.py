"""Declarative build tests: what a build must make, what it made, and where the same build differs."""
