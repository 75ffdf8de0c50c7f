"""The typed graph: what flows along an edge, how tokens are laid out, and what a graph of ops is."""
