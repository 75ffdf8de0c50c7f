"""What families share: norms, attention and MLP as sublayers, stems, downsamplings, heads."""
