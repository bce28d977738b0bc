"""Workloads: arrival times and lengths, traces, text data sets, synthetic draws."""
