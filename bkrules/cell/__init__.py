"""All of bk that runs in a cell, or in the processes from which cells are forked. Every file here is in the keys of cells."""
