"""An SMTP server in a thread of the tests, which can refuse, hang, respond slowly and close connections at each step.

``with smtp_server() as server:`` starts it. ``server.url`` is the value of BYTEOR_CLOUD_SMTP_URL, and
``server.messages`` are the accepted e-mails.
"""

from __future__ import annotations

import base64
import email
import email.policy
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from enum import StrEnum
from typing import Literal, override
from urllib.parse import quote

USER, PASSWORD = "mailer", "secret/@: word"


class Step(StrEnum):
    """The steps of a connection at which the server can behave differently."""

    CONNECT = "connect"
    EHLO = "ehlo"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    MESSAGE = "message"  # the end of an e-mail


class Trouble(StrEnum):
    """The ways in which the server can misbehave at a step, instead of sending its usual response."""

    HANG = "hang"  # until ``released`` is set; then close the connection
    DROP = "drop"  # close the connection; at Step.MESSAGE, accept the e-mail first
    DRIP = "drip"  # send an endless response, one byte at a time, until ``released`` is set; then close the connection


type Behavior = Trouble | str | None  # a string is a response, such as "550 No such user", and None is the usual one


@dataclass(frozen=True)
class Received:
    """An accepted e-mail with its envelope."""

    sender: str
    recipient: str
    message: EmailMessage
    raw: bytes

    def part(self, subtype: Literal["plain", "html"]) -> str:
        """Return the text of the e-mail in this format."""
        body = self.message.get_body((subtype,))
        assert body is not None
        text: str = body.get_content()
        return text.replace("\r\n", "\n")


class SmtpServer:
    """A running server, with the e-mails that it accepted and its behavior at each step."""

    def __init__(self, tls: ssl.SSLContext | None, security: Literal["starttls", "tls", "off"]) -> None:
        self.messages: list[Received] = []
        self.steps: list[tuple[Step, str]] = []
        """The steps of all connections, each with a text.

        The text is empty for CONNECT, the argument for EHLO and AUTH, the sender for MAIL, and the recipient for later
        steps.
        """
        self.tls, self.security = tls, security
        self.released = threading.Event()
        self.host, self.port = "127.0.0.1", 0
        self._behaviors: dict[Step, Callable[[str], Behavior]] = {}

    @property
    def url(self) -> str:
        """The URL of the server with a user and a password."""
        scheme = "smtps" if self.security == "tls" else "smtp"
        options = "?tls=off" if self.security == "off" else ""
        return f"{scheme}://{USER}:{quote(PASSWORD, safe='')}@{self.host}:{self.port}{options}"

    def behave(self, step: Step, behavior: Behavior | Callable[[str], Behavior], *, times: int | None = None) -> None:
        """Use this behavior whenever the step is reached, but at most ``times`` times if that is given.

        A function gets the text that ``steps`` contains for the step, for example the recipient's address.
        """
        decide = behavior if callable(behavior) else lambda _: behavior
        left = [times]

        def limited(argument: str) -> Behavior:
            if left[0] is not None:
                if left[0] == 0:
                    return None
                left[0] -= 1
            return decide(argument)

        self._behaviors[step] = limited

    def recover(self) -> None:
        """Behave as usual again, except in connections that already hang or get an endless response."""
        self._behaviors.clear()

    def count(self, step: Step) -> int:
        """Return how often clients have reached the step."""
        return sum(each == step for each, _ in self.steps)

    def decide(self, step: Step, argument: str) -> Behavior:
        self.steps.append((step, argument))
        decide = self._behaviors.get(step)
        return None if decide is None else decide(argument)


class _Closed(Exception):
    """The connection must be closed."""


class _Handler(socketserver.StreamRequestHandler):
    """One connection."""

    smtp: SmtpServer

    @override
    def handle(self) -> None:
        with suppress(_Closed, OSError, ValueError):
            if self.smtp.security == "tls":
                self._start_tls()
            self._respond(Step.CONNECT, "", "220 test")
            self._converse()

    def _converse(self) -> None:
        sender = recipient = ""
        signed_in = False
        while line := self.rfile.readline():
            command, _, argument = line.decode().strip().partition(" ")
            match command.upper():
                case "EHLO":
                    offered = ["250-test", "250-SIZE 1000000", "250-8BITMIME"]
                    if self.smtp.security == "starttls" and not isinstance(self.connection, ssl.SSLSocket):
                        offered.append("250-STARTTLS")
                    self._respond(Step.EHLO, argument, "\r\n".join([*offered, "250 AUTH PLAIN"]))
                case "STARTTLS" if self.smtp.security == "starttls":
                    self._send("220 go ahead")
                    self._start_tls()
                case "AUTH":
                    given = base64.b64decode(argument.removeprefix("PLAIN ")).decode().split("\0")
                    signed_in = given == ["", USER, PASSWORD]
                    usual = "235 signed in" if signed_in else f"535 wrong: {argument}"
                    self._respond(Step.AUTH, argument, usual)
                case "MAIL":
                    sender = argument.partition("<")[2].partition(">")[0]
                    self._respond(Step.MAIL, sender, "250 ok" if signed_in else "530 sign in first")
                case "RCPT":
                    recipient = argument.partition("<")[2].partition(">")[0]
                    self._respond(Step.RCPT, recipient, "250 ok" if "@" in recipient else "501 no address")
                case "DATA":
                    if self._respond(Step.DATA, recipient, "354 go ahead") == "354 go ahead":
                        self._receive(sender, recipient)
                case "QUIT":
                    self._send("221 bye")
                    return
                case _:
                    self._send("250 ok" if command.upper() == "RSET" else "502 unknown command")

    def _receive(self, sender: str, recipient: str) -> None:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line:
                raise _Closed
            lines.append(line.removeprefix(b"."))
        raw = b"".join(lines)
        received = Received(sender, recipient, email.message_from_bytes(raw, policy=email.policy.default), raw)
        behavior = self.smtp.decide(Step.MESSAGE, recipient)
        if behavior is None or behavior is Trouble.DROP:
            self.smtp.messages.append(received)
        self._behave(behavior, "250 accepted")

    def _respond(self, step: Step, argument: str, usual: str) -> str:
        return self._behave(self.smtp.decide(step, argument), usual)

    def _behave(self, behavior: Behavior, usual: str) -> str:
        match behavior:
            case Trouble.HANG:
                self.smtp.released.wait()
                raise _Closed
            case Trouble.DROP:
                raise _Closed
            case Trouble.DRIP:
                while not self.smtp.released.wait(0.02):
                    self.wfile.write(b"2")
                raise _Closed
        response = behavior or usual
        self._send(response)
        return response

    def _send(self, response: str) -> None:
        self.wfile.write(response.encode() + b"\r\n")

    def _start_tls(self) -> None:
        assert self.smtp.tls is not None
        self.connection = self.smtp.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", 0)

    @override
    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
        with suppress(OSError):
            self.connection.close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 100


@contextmanager
def smtp_server(
    *, tls: ssl.SSLContext | None = None, security: Literal["starttls", "tls", "off"] = "off", port: int = 0
) -> Iterator[SmtpServer]:
    """Run a server while the block runs. Clients must sign in. ``tls`` is needed unless ``security`` is ``off``."""
    smtp = SmtpServer(tls, security)
    handler = type("Handler", (_Handler,), {"smtp": smtp})
    with _Server((smtp.host, port), handler) as server:
        smtp.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield smtp
        finally:
            smtp.released.set()
            server.shutdown()
            thread.join()
