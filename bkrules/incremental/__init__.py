"""What makes the next build short: what this one read, and whether that is still the same."""
