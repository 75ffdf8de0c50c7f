"""Predicted latencies: from timed segments, and a few networks measured as a whole."""
