"""Latencies that nobody measured: from segments, and a few networks measured as a whole."""
