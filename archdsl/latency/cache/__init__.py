"""What was measured already, on disk: timings, how repeatable they are, and networks that crash."""
