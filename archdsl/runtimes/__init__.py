"""What a latency belongs to and what runs it: targets, artefacts, the table of runtimes and their adapters."""
