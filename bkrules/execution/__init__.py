"""Execution: actions become results, in parallel, through the cache."""
