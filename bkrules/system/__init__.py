"""The parts of the operating system that bk uses: files, streams, facts of the kernel."""
