"""The long-running verbs: each prepares what the command names, runs it, and writes its folder."""
