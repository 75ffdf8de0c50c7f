"""A base spec and what may be chosen about it -> a `Space`: choices, counting, objectives, the JSON Schema."""
