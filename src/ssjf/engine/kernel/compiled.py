"""How the kernel's functions are compiled."""

from numba import njit

# Reference counting is off (``_nrt``): the kernel allocates nothing and keeps no array, and
# counting at every call costs ten times what the simulation does. Division by zero cannot
# happen (a block has at least one token), so numpy's unchecked division will do.
_OPTIONS = {"_nrt": False, "error_model": "numpy", "cache": True, "nogil": True}

compiled = njit(**_OPTIONS)
inlined = njit(**_OPTIONS, inline="always")
