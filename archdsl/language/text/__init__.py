"""YAML text -> a tree of nodes with places: files, limits, numbers with units, and what errors say."""
