"""Where a study is kept, and how many workers write to it without losing or doubling anything."""
