"""Tests of the threads that wait for the disk, in a process with an event loop, like an API process."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from gevent import monkey
monkey.patch_all()
import errno, gevent
from byteor_cloud.concurrency.offload import run_in_disk_thread

blocked, released = monkey.get_original("threading", "Event")(), monkey.get_original("threading", "Event")()

def wait():
    blocked.set()
    released.wait(60)
    return "done"

def fail():
    raise OSError(errno.ENOSPC, "full")

waiting = gevent.spawn(run_in_disk_thread, wait)
while not blocked.is_set():
    gevent.sleep(0.001)
try:  # the event loop runs while a thread waits
    run_in_disk_thread(fail)
except OSError as error:
    print(error.errno == errno.ENOSPC)
released.set()
print(waiting.get())
"""


def test_event_loop_runs_while_thread_waits_for_disk() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False)

    assert (done.stdout, done.stderr) == ("True\ndone\n", "")
