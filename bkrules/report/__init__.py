"""Reports: the output for the user, and the files that outlive a build."""
