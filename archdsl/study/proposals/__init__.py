"""Which network to look at next."""
