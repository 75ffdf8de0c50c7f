"""A child process for the tests of `archdsl.processes`: each job says what it does wrong."""

import os
import time

from archdsl.processes.channel import connect


def main(arguments):
    channel = connect(arguments)
    while (job := channel.receive()) is not None:
        for i in range(job.get("steps", 0)):
            time.sleep(job["step_s"])
            channel.tell(f"step {i}", number=i)
        time.sleep(job.get("sleep_s", 0))
        if "exit" in job:
            print("the last words", flush=True)
            os._exit(job["exit"])
        try:
            size = len(bytearray(job.get("bytes", 0)))
        except MemoryError:
            size = None
        channel.send({"kind": "result", "bytes": size, "pid": os.getpid()})
