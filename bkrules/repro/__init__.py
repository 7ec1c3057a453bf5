"""Reproductions: one file with a cell and its result, which another machine runs again."""
