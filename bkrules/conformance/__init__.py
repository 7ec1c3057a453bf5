"""What every worker must do, whoever wrote it: `bk plugin check`."""
