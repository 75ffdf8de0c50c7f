"""The blocks of the papers: one file a paper, with the names of its tensors in other libraries beside it."""
