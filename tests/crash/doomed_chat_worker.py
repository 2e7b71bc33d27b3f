"""A worker that kills itself with ``kill -9`` while it handles an event and sends a chat message about it.

It is controlled like ``doomed_worker``. The moments are before and after the message is posted, and before and after
the commit of each transaction that handles the event or records that the message was sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, override

from tests.crash.doomed_worker import Doom, main

_STATE = """
SELECT (SELECT count(*) FROM tenancy_messageevent WHERE outcome <> 'pending'),
       (SELECT count(*) FROM notifications_chatdelivery WHERE status <> 'pending')
"""


class ChatDoom(Doom):
    """The moment in handling an event and sending its chat message at which this process dies."""

    @override
    def watch(self) -> None:
        from django.db.backends.base.base import BaseDatabaseWrapper

        from apps.notifications.jobs import HandleEvents, SendChat
        from apps.tenancy.services.webhooks import outgoing
        from byteor_cloud.worker import jobs, outcomes
        from byteor_cloud.worker.jobs import KINDS

        jobs.KILLS, outcomes.LONGEST_WAIT_AFTER_A_KILL_S = 1000, 0
        for job, step in ((HandleEvents, "handling"), (SendChat, "recording")):
            KINDS[job.name] = replace(KINDS[job.name], run=self._in_step(step, KINDS[job.name].run))
        commit, post = BaseDatabaseWrapper._commit, outgoing.post  # type: ignore[attr-defined]  # the stubs lack ``_commit``

        def watched_commit(wrapper: Any) -> None:
            step = getattr(self.job, "step", None)
            state = wrapper.connection.execute(_STATE).fetchone() if step else None
            moved = state is not None and state != self.job.state
            if moved:
                self.pass_or_die(f"before {step}")
            commit(wrapper)
            if moved:
                self.job.state = state
                self.pass_or_die(f"after {step}")

        def watched_post(*args: Any, **kwargs: Any) -> Any:
            self.pass_or_die("before posting")
            result = post(*args, **kwargs)
            self.pass_or_die("after posting")
            return result

        BaseDatabaseWrapper._commit = watched_commit  # type: ignore[attr-defined]  # the stubs lack ``_commit``
        outgoing.post = watched_post

    def _in_step(self, step: str, function: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any, **kwargs: Any) -> None:
            from django.db import connection

            connection.ensure_connection()
            self.job.step, self.job.state = step, connection.connection.execute(_STATE).fetchone()
            try:
                function(*args, **kwargs)
            finally:
                self.job.step = None

        return run


if __name__ == "__main__":
    main(ChatDoom)
