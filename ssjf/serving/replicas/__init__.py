"""More than one vLLM: the middleware before running servers, and replicas on Ray Serve."""
