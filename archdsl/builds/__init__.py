"""A build: the files of one network in a folder, what they were made from, and how exactly they compute it.

`config.BuildConfig` says what to build, each of `makers.MAKERS` makes one kind of artefact, `write.write_build` calls
them and writes the folder.
"""
