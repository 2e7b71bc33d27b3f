"""Send e-mails through the operator's mail server, with a time limit for each attempt."""

from __future__ import annotations

import smtplib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from types import TracebackType
from typing import Self

from django.core.mail import DNS_NAME

from apps.tenancy.services.webhooks import outgoing
from byteor_cloud.config import SmtpServer
from byteor_cloud.logs import mask_secrets

STEP_S = 10.0
"""The maximum time of each step: to resolve the host's name, to connect to one address, or to wait for data."""
ATTEMPT_S = 30.0
"""The maximum time to connect and sign in, or to send one e-mail."""
_CLOSING = 421  # the code with which a server announces that it closes the connection
_MAX_REASON = 200
_TIMED_OUT = "The connection to the mail server was closed or timed out."


class NotSent(Exception):
    """An attempt to send an e-mail failed. The message says why, in one line without secrets."""


class Refused(NotSent):
    """This e-mail can never be sent, for example because the mailbox does not exist."""


class Deferred(NotSent):
    """The server refuses this e-mail for now, for example because the mailbox is busy."""


class Unavailable(NotSent):
    """The connection, the sign-in or the server failed, which probably affects other e-mails as well."""


class _Watchdog:
    """A timer that shuts down a connection that is still in use when the time limit of an attempt is over.

    A socket's timeout applies to each read, so a server that sends single bytes could block the worker for hours.
    """

    def __init__(self) -> None:
        self._handle: socket.socket | None = None
        self._deadline = 0.0
        self.has_fired = False

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Shut down the watched connection if the block takes longer than ``ATTEMPT_S``."""
        self._deadline = time.monotonic() + ATTEMPT_S
        self.has_fired = False
        timer = threading.Timer(ATTEMPT_S, self._shut_down)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def open_socket(self, host: str, port: int) -> socket.socket:
        """Connect to one of the host's first addresses, and watch the connection.

        Tries at most ``ADDRESSES_TRIED`` addresses, in their order. Raises OSError if none accepts the connection.
        """
        self.close()
        addresses = outgoing.resolve(host, port, within=STEP_S)[: outgoing.ADDRESSES_TRIED]
        for number, address in enumerate(addresses, 1):
            left = max(self._deadline - time.monotonic(), 0.01)
            try:
                opened = socket.create_connection((address, port), timeout=min(left, STEP_S))
            except OSError:
                if number == len(addresses):
                    raise
            else:
                opened.settimeout(STEP_S)
                self._handle = opened.dup()  # TLS replaces the socket object, but not the connection
                if self.has_fired:  # before there was a connection to shut down
                    opened.close()
                    raise TimeoutError
                return opened
        raise OSError("The host has no address.")

    def close(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _shut_down(self) -> None:
        self.has_fired = True
        if self._handle is not None:
            with suppress(OSError):  # the connection is already closed
                self._handle.shutdown(socket.SHUT_RDWR)


class _Smtp(smtplib.SMTP):
    """An SMTP client with a watched connection."""

    def __init__(self, server: SmtpServer, watchdog: _Watchdog) -> None:
        self._watchdog = watchdog
        super().__init__(server.host, server.port, local_hostname=DNS_NAME.get_fqdn(), timeout=STEP_S)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._watchdog.open_socket(host, port)


class _TlsSmtp(smtplib.SMTP_SSL, _Smtp):
    """An SMTP client that uses TLS from the start: ``SMTP_SSL`` wraps the socket that ``_Smtp`` opens."""

    def __init__(self, server: SmtpServer, watchdog: _Watchdog) -> None:
        self._watchdog = watchdog
        smtplib.SMTP_SSL.__init__(
            self, server.host, server.port, local_hostname=DNS_NAME.get_fqdn(), timeout=STEP_S,
            context=outgoing.tls_context(),
        )  # fmt: skip


class Connection:
    """A connection to the mail server, opened for the first e-mail and reused until it fails. A context manager."""

    def __init__(self, server: SmtpServer) -> None:
        self._server = server
        self._watchdog = _Watchdog()
        self._client: smtplib.SMTP | None = None
        self.was_open = False
        """Whether the server has accepted a connection and the sign-in."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, message: EmailMessage) -> None:
        """Send the e-mail. Raises Refused, Deferred or Unavailable unless the server accepts it."""
        client = self._connected()
        try:
            with self._watchdog.bound():
                client.send_message(message)
        except (smtplib.SMTPException, OSError, UnicodeError) as error:
            failure = _judge(error, is_late=self._watchdog.has_fired)
            if isinstance(failure, Unavailable):
                self.close()
            raise failure from None

    def close(self) -> None:
        """Close the connection if it is open, without waiting for the server's response."""
        if self._client is not None:
            with suppress(smtplib.SMTPException, OSError):
                self._client.putcmd("quit")
            self._client.close()
            self._client = None
        self._watchdog.close()

    def _connected(self) -> smtplib.SMTP:
        if self._client is None:
            try:
                with self._watchdog.bound():
                    self._client = self._connect()
                self.was_open = True
            except (smtplib.SMTPException, OSError, UnicodeError) as error:
                self.close()
                raise Unavailable(_TIMED_OUT if self._watchdog.has_fired else _explain(error)) from None
        return self._client

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        client = (_TlsSmtp if server.security == "tls" else _Smtp)(server, self._watchdog)
        try:
            if server.security == "starttls":
                client.starttls(context=outgoing.tls_context())
            if server.user:
                client.login(server.user, server.password)
        except BaseException:
            client.close()
            raise
        return client


def _judge(error: Exception, *, is_late: bool) -> NotSent:
    """Return the error for a failed attempt. ``is_late``: the watchdog has fired."""
    code: int
    text: bytes | str
    match error:
        case _ if is_late:  # smtplib mistakes the beginning of a response for all of it
            return Unavailable(_TIMED_OUT)
        case smtplib.SMTPRecipientsRefused():
            code, text = next(iter(error.recipients.values()))
        case smtplib.SMTPDataError():
            code, text = error.smtp_code, error.smtp_error
        case smtplib.SMTPNotSupportedError() | UnicodeError():
            return Refused(_in_one_line(str(error)))
        case _:
            return Unavailable(_explain(error))
    kind = Refused if 500 <= code < 600 else Deferred if 400 <= code < 500 and code != _CLOSING else Unavailable
    # A spam filter may quote the e-mail, which may contain a sign-in link.
    return kind(mask_secrets(_in_one_line(f"{code} {_decode(text)}")))


def _explain(error: Exception) -> str:
    """Return the reason for a failure, without the server's response to a sign-in, which may repeat the password."""
    match error:
        case smtplib.SMTPAuthenticationError():
            return f"The mail server refused the sign-in ({error.smtp_code})."
        case smtplib.SMTPNotSupportedError():
            return _in_one_line(str(error))
        case smtplib.SMTPResponseException():
            return _in_one_line(f"{error.smtp_code} {_decode(error.smtp_error)}")
        case smtplib.SMTPServerDisconnected() | TimeoutError():
            return _TIMED_OUT
    return _in_one_line(f"The mail server cannot be used: {error}")


def _decode(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode(errors="replace")


def _in_one_line(text: str) -> str:
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:_MAX_REASON]
