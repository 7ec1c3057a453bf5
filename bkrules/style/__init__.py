"""The one way to write build files."""
