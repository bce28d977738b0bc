"""Arrays in, numbers out: metrics, intervals, quality of predictions."""
