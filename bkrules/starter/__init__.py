"""The files with which a repository begins to use bk."""
