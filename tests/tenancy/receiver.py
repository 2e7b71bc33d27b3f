"""A webhook receiver: an HTTP server in a thread, and a certificate for it."""

from __future__ import annotations

import datetime
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass
class Message:
    """A received POST."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """The responses of a receiver, and the messages that it has received.

    It returns each of the statuses once, and then the last one for all further messages. If ``drip_s`` is set,
    its responses never end.
    """

    port: int = 0
    statuses: list[int] = field(default_factory=lambda: [204])
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    drip_s: float = 0
    messages: list[Message] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?team=ops"

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        """Store a message and respond to it."""
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        named = {name.lower(): value for name, value in handler.headers.items()}
        self.messages.append(Message(handler.path, named, body))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if self.drip_s:
            self._drip(handler)
        handler.send_response(status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(self.content)))
        handler.end_headers()
        handler.wfile.write(self.content)

    def _drip(self, handler: BaseHTTPRequestHandler) -> None:
        """Send an endless header, one byte every ``drip_s`` seconds. With short pauses, no single read times out."""
        handler.wfile.write(b"HTTP/1.1 204 No Content\r\nX: ")
        try:
            while True:
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(self.drip_s)
        except OSError:
            handler.close_connection = True


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Run a receiver during the block."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.respond(self)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: Any) -> None:
            pass  # a client that does not trust the certificate closes the connection

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        receiver.port = server.server_port
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()


def certificate(host: str, folder: Path) -> Path:
    """Write a self-signed certificate for ``host`` and its key to a file, which clients can also use as CA bundle."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + made.public_bytes(pem))
    return path
