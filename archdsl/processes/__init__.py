"""Supervised child processes: they may crash, hang or eat memory, and that costs their parent one job.

`warm.py` keeps a child between jobs, `child.py` starts, watches and kills it, `frames.py` frames the messages. In the
child, `channel.py` connects to the parent and `limits.py` bounds the memory.
"""
