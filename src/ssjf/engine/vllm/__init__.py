"""Policies on real vLLM: tiny models, an engine in a process of its own, a scheduler class.

``client``, ``deployment`` and ``models`` can be imported anywhere. ``worker`` and what it calls run
where vLLM is installed and need numpy besides; ``scheduler``, ``connector`` and ``quantising``
import vLLM or torch at once.
"""
