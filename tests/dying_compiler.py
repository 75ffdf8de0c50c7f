"""A process that dies of its first job, as a compiler may."""

from __future__ import annotations

import os

from archdsl.processes.channel import connect


def main(arguments: list[str]) -> None:
    if connect(arguments).receive() is not None:
        os.abort()
