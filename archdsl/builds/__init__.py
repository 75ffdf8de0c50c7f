"""A build: the files of one network in a folder, what they were made from, and how true to it they are.

`plan.Plan` says what is wanted, each of `makers.MAKERS` makes one kind of artefact, `write.write_build` does it all.
"""
