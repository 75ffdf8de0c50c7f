"""Graph -> graph (rewrites) and graph -> facts (cost conventions). One file a pass; `pipelines` says which run when.

Passes import numpy where they compute with it, so that commands which only look at graphs start without it.
"""
