"""A worker that kills itself with ``kill -9`` at chosen moments of a rollout and is restarted immediately.

``python -m tests.crash.doomed_worker`` reads lines from its stdin. Each line restarts the worker and is a JSON list
of moments: the restarted worker dies at the first one, its successor at the second one, and so on. The worker after
the last death survives. The process prints a line for each moment that a worker passes or dies at. Every worker is a
fork of this process, which has loaded the code and has no open connection, so workers start fast.

The moments are before and after the commit of each transaction in which a job changes a deployment's status, wave or
offers, in the middle of writing the deployment's bundle, and after the bundle is written.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

from byteor_cloud import config
from byteor_cloud.database.embedded import EmbeddedPostgres

_STATE = """
SELECT status, wave, wave_done_at IS NOT NULL,
       (SELECT count(*) FROM releases_deploymentagent WHERE deployment_id = d.id AND offered_at IS NOT NULL)
FROM releases_deployment d WHERE id = %s
"""


class Doom:
    """The moment at which this process dies, and the hooks that detect the moments."""

    def __init__(self, moment: str | None) -> None:
        self.moment = moment
        self.job = threading.local()

    def is_at(self, moment: str) -> bool:
        """Return whether the process must die at this moment. If not, print that the moment passed."""
        if moment == self.moment:
            return True
        _print(f"passed {moment}")
        return False

    def pass_or_die(self, moment: str) -> None:
        if self.is_at(moment):
            _die()

    def watch(self) -> None:
        """Patch the code of this process, because the product has no hooks for tests."""
        from django.core.files.base import ContentFile
        from django.db.backends.base.base import BaseDatabaseWrapper

        from apps.releases.jobs import SWEEP, BuildBundle, StepRollout
        from byteor_cloud.storage import blobs
        from byteor_cloud.worker import jobs, outcomes
        from byteor_cloud.worker.jobs import KINDS

        # Permit more deaths than the limit for a job, and skip the delay after each death.
        jobs.KILLS, outcomes.LONGEST_WAIT_AFTER_A_KILL_S = 1000, 0
        for name in (BuildBundle.name, StepRollout.name):
            KINDS[name] = replace(KINDS[name], run=self._watched(KINDS[name].run))
        # Sweep every second, because the strategies of the tests pause for only one second between waves.
        KINDS[SWEEP.name] = replace(KINDS[SWEEP.name], periodic=replace(SWEEP, every_s=1))

        # Django commits through this method, which the stubs lack.
        commit, put = BaseDatabaseWrapper._commit, blobs.put  # type: ignore[attr-defined]

        def watched_commit(wrapper: Any) -> None:
            state = self._state(wrapper.connection)
            moved = state is not None and state != self.job.state
            if moved:
                self.pass_or_die(f"before {state}")
            commit(wrapper)
            if moved:
                self.job.state = state
                self.pass_or_die(f"after {state}")

        def watched_put(content_hash: str, content: bytes) -> None:
            if self.is_at("in the middle of the bundle"):
                blobs._save(blobs.storage_name(content_hash), ContentFile(content[: len(content) // 2]))
                _die()
            put(content_hash, content)
            self.pass_or_die("after the bundle")

        BaseDatabaseWrapper._commit = watched_commit  # type: ignore[attr-defined]  # the stubs lack ``_commit``
        blobs.put = watched_put

    def _watched(self, function: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any, deployment_id: str, **kwargs: Any) -> None:
            from django.db import connection

            connection.ensure_connection()
            self.job.deployment_id = deployment_id
            self.job.state = self._state(connection.connection)
            try:
                function(*args, deployment_id=deployment_id, **kwargs)
            finally:
                self.job.deployment_id = None

        return run

    def _state(self, connection: Any) -> str | None:
        """Return the state, as this transaction sees it, of the deployment that this thread's job changes.

        Returns None if the thread runs no such job.
        """
        deployment_id = getattr(self.job, "deployment_id", None)
        if deployment_id is None:
            return None
        status, wave, wave_done, offered = connection.execute(_STATE, [UUID(deployment_id)]).fetchone()
        done = " done" if wave_done else ""
        return f"{status}, wave {wave + 1}{done}, {offered} offered"


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _print(line: str) -> None:

    os.write(1, f"{line}\n".encode())


def _fork(make: type[Doom], moment: str | None) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        from django.core.management import call_command

        make(moment).watch()
        call_command("worker")
        code = 0
    finally:
        os._exit(code)


def main(make: type[Doom] = Doom) -> None:
    """Run workers, each with the hooks of ``make``, until stdin is closed."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "byteor_cloud.settings")
    held = EmbeddedPostgres(config.load(os.environ).data_dir)
    os.environ["BYTEOR_EMBEDDED_DATABASE_URL"] = held.acquire()
    import django

    django.setup()
    moments: list[str] = []
    doomed: str | None = None
    orders = io.FileIO(0, closefd=False)  # unbuffered, so that ``select`` sees every line
    child = _fork(make, None)
    while True:
        death = os.pidfd_open(child)
        ready, _, _ = select.select([orders.fileno(), death], [], [])
        os.close(death)
        if death in ready:
            status = os.waitpid(child, 0)[1]
            assert os.WIFSIGNALED(status), f"the worker exited on its own: {status}"
            _print(f"died {doomed}")
        else:
            line = orders.readline()
            os.kill(child, signal.SIGKILL if line else signal.SIGTERM)
            os.waitpid(child, 0)
            if not line:
                break
            moments = json.loads(line)
        doomed = moments.pop(0) if moments else None
        child = _fork(make, doomed)
    held.release()


if __name__ == "__main__":
    main()
