"""Which network to evaluate next: samplers, candidates, and the model that ranks them."""
