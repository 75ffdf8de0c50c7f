"""Where a network's time goes, by the nodes of its graph."""
