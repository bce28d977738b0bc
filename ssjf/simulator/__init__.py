"""Where requests run: the exact iteration-level machine, step-time profiles, the authors' own
simulation."""
