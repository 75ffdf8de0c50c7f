"""Graph -> torch.fx.GraphModule: modules for training, fused calls for inference, ranges of values."""
