"""The mirror of a cell: a registry that reads only, behind a proxy that counts and adds faults."""
