"""Queries: Bazel's query language over the target graph. The language and its evaluation know nothing of loading."""
