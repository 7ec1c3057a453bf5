"""The interface for authors of tests and plugins: the `sandbox` fixture and the conformance kit."""
