"""Graph -> graph (rewrites) and graph -> facts (cost conventions). One file a pass."""
