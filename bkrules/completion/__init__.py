"""Completion of command lines: a shell asks bk for candidates, which come from a table of options and from kept state."""
