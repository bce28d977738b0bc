"""The exact iteration-level simulator, step-time profiles, and the paper's own simulation."""
