"""One adapter for each runtime, and beside it what reads that runtime's profiler."""
