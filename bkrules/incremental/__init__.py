"""Incremental builds: the record of a build's dependencies, and the check whether they are unchanged."""
