"""Processes under bk: their start, confinement, limits and end."""
