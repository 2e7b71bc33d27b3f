"""A worker that kills itself with ``kill -9`` while it sends e-mails (see ``tests/crash/doomed_worker.py``)."""

from __future__ import annotations

import smtplib
from collections.abc import Callable
from typing import Any, override

from tests.crash.doomed_worker import Doom, main

BEFORE_CONNECT = "before the connection"
AFTER_SENDER = "after MAIL FROM"
BEFORE_RESPONSE = "after the end of the e-mail"
BEFORE_COMMIT = "after the response"


class MailDoom(Doom):
    """The moment in the sending of an e-mail at which this process dies."""

    @override
    def watch(self) -> None:
        from byteor_cloud.worker import jobs, outcomes

        # Permit more deaths than the limit for a job, and skip the delay after each death.
        jobs.KILLS, outcomes.LONGEST_WAIT_AFTER_A_KILL_S = 1000, 0
        self._wrap("connect", before=BEFORE_CONNECT)
        self._wrap("mail", after=AFTER_SENDER)
        self._wrap("sendmail", after=BEFORE_COMMIT)
        data, read = smtplib.SMTP.data, smtplib.SMTP.getreply

        def watched_data(client: Any, message: Any) -> Any:
            responses = iter(range(2))

            def watched_read() -> Any:
                if next(responses) == 1:
                    self.pass_or_die(BEFORE_RESPONSE)
                return read(client)

            client.getreply = watched_read
            try:
                return data(client, message)
            finally:
                del client.getreply

        smtplib.SMTP.data = watched_data  # type: ignore[method-assign,assignment]

    def _wrap(self, name: str, *, before: str | None = None, after: str | None = None) -> None:
        method: Callable[..., Any] = getattr(smtplib.SMTP, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if before is not None:
                self.pass_or_die(before)
            result = method(*args, **kwargs)
            if after is not None:
                self.pass_or_die(after)
            return result

        setattr(smtplib.SMTP, name, wrapped)


if __name__ == "__main__":
    main(MailDoom)
