"""Batching over real vLLM: a live engine in a worker process, servers under load. vLLM is
imported there."""
