"""An engine that was compiled for a GPU and not run: what it does kernel by kernel, and an estimate of its latency."""
