"""Loading: files become targets. A pure function of the bytes of WORKSPACE.py and the BUILD.py files."""
