"""The module `bk_tools` of bk: build files, macros and pins. Python imports nothing of it."""
