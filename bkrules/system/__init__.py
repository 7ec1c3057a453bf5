"""What bk asks of the operating system: files, streams, facts of the kernel."""
