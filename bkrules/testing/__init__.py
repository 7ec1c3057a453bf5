"""What test authors and plugin authors use: the `sandbox` fixture and the conformance kit."""
