"""A soak test: faults are injected into a server while clients keep sending requests."""
