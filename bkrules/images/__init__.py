"""Images as OCI describes them: references, layouts on disk, and a registry's storage tree."""
