"""The conformance tests of workers: `bk plugin check`."""
