"""Which networks are on the front, how sure that is, and how much the front covers."""
