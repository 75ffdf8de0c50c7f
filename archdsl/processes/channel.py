"""The child's side: how a process that `child.py` started binds itself to its parent and takes jobs."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
import time

from archdsl.processes.frames import Decoder, Message, encode
from archdsl.processes.limits import Limits

PR_SET_PDEATHSIG = 1


class Channel:
    """Whole messages over the socket to the parent."""

    def __init__(self, sock: socket.socket):
        self._socket, self._decoder = sock, Decoder()

    def send(self, message: Message) -> None:
        self._socket.sendall(encode(message))

    def tell(self, step: str, most_s: float | None = None, **more: object) -> None:
        """Report progress: the step that comes now, and how many seconds it takes at most, where that is known."""
        self.send({"kind": "progress", "step": step, "most_s": most_s, **more})

    def receive(self) -> Message | None:
        """The next message; None when the parent has hung up."""
        while (message := self._decoder.next()) is None:
            data = self._socket.recv(2**20)
            if not data:
                return None
            self._decoder.feed(data)
        return message


def connect(arguments: list[str]) -> Channel:
    """Make this process die with its parent, bound its memory, and say that it takes jobs.

    Args:
        arguments: as `child.py` passes them: the socket's descriptor, the parent's process id, the two `Limits`
    """
    descriptor, parent, *limits = (int(argument) for argument in arguments)
    os.set_inheritable(descriptor, False)
    _die_with(parent)
    Limits(*limits).apply()
    faulthandler.enable()
    channel = Channel(socket.socket(fileno=descriptor))
    channel.send({"kind": "ready"})
    return channel


def _die_with(parent: int) -> None:
    """Be killed when the thread that started us ends; leave at once if that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    else:
        threading.Thread(target=_look_for, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _look_for(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
