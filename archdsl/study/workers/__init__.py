"""Worker processes of one study: what they are to do, who leads them, and where they run."""
