"""Reports: results become what the user sees, and the files that outlive a build."""
