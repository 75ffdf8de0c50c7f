"""Graph -> one plain PyTorch file: classes for blocks that are alike, loops over depth, torch the only import."""
