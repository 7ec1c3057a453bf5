"""Processes under bk: how they are started, confined, limited and ended."""
