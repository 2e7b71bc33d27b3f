"""Worker processes that are killed by a job with ``kill -9``, one after the other.

``python -m tests.crash.poisoned_worker JOB`` reads lines from its stdin. For each line it starts a worker process and
prints ``died`` if the job JOB killed the process, or ``lived``. At the end of the input it starts a worker that runs
until no job is due. Each worker is a fork of this process.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from typing import Any


def _fork(poison: str) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        from byteor_cloud.worker.jobs import KINDS
        from byteor_cloud.worker.process import Worker

        def kill(*_: Any, **__: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        KINDS[poison] = replace(KINDS[poison], run=kill)
        Worker(has_clock=False).run(until_idle=True)
        code = 0
    finally:
        os._exit(code)


def main() -> None:
    import django

    django.setup()
    for _ in sys.stdin:
        status = os.waitpid(_fork(sys.argv[1]), 0)[1]
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        os.write(1, b"died\n" if killed else b"lived\n")
    assert os.waitpid(_fork(sys.argv[1]), 0)[1] == 0


if __name__ == "__main__":
    main()
