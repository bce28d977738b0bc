"""Live vLLM: an engine in a worker process, and servers under load. vLLM is imported only there."""
