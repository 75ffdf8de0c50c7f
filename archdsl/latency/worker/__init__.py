"""The process in which networks run: its environment, its jobs, and how often a failed one is retried."""
