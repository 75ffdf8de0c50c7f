"""A tree of nodes -> a `Spec`, and the graph of a spec: `extends`, overrides, parts, lowering, the JSON Schema."""
