"""More than one vLLM: the middleware before servers that run, and replicas on Ray Serve."""
