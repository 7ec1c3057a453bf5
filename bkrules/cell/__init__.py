"""All code of bk that runs in a cell, or in the processes from which cells are forked. Keys of cells cover every file here."""
