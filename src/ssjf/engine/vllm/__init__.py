"""Policies on real vLLM: tiny models, an engine in a process of its own, a scheduler class.

Only ``worker`` and what it calls run where vLLM is installed; they need numpy besides. vLLM is
imported inside functions: this package can be imported anywhere.
"""
