"""One POST to a receiver that a tenant names: to no address inside our network, and in bounded time."""

from __future__ import annotations

import http.client
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from byteor_cloud.config import Network

type Address = IPv4Address | IPv6Address

TIMEOUT_S = 10.0
MOST_READ = 4096
ADDRESSES_TRIED = 3
# One form, read by one expression: no two parsers that could see two hosts in it. No user info, no fragment.
_URL = re.compile(
    r"(https?)://([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?((?:[/?][!$-;=?-\[\]_a-z~]*)?)"
)
# The special-purpose networks of IANA's registries (iana-ipv4-special-registry and iana-ipv6-special-registry, as of
# 2025-10-09), with multicast and reserved space. A table of our own, since what `ipaddress` takes for public changed in
# patch releases of Python. Those that the registry calls globally reachable (192.0.0.9/32, 192.31.196.0/24, parts of
# 2001::/23, …) are infrastructure that no receiver lives on, so they are refused too.
_SPECIAL_V4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared (carrier-grade NAT)
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # not in the registry: Azure's host services
        "169.254.0.0/16",  # link-local; clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # multicast tunnelling
        "192.88.99.0/24",  # 6to4 relays (deprecated)
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Only this is unicast of the internet. Loopback, IPv4-compatible, unique and link-local, site-local, segment routing
# (5f00::/16), discard-only (100::/64), local NAT64 (64:ff9b:1::/48) and multicast lie outside it.
_GLOBAL_V6 = IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo (2001::/32), benchmarking (2001:2::/48), ORCHID, …
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: another way to write an IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")


class Refused(Exception):
    """This receiver is not posted to; the message is for the person who named it."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """A URL, taken apart."""

    scheme: str
    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a POST: a status, or an error's code when there was none."""

    status: int | None
    error: str
    duration_ms: int
    retry_after: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the receiver took it."""
        return self.status is not None and 200 <= self.status < 300


def is_public(address: Address) -> bool:
    """Tell whether it is a unicast address of the internet, in whatever notation: not private, loopback, reserved, …"""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    if address in _MAPPED or address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)


def is_permitted(address: Address, allowed: Collection[Network]) -> bool:
    """Whether it is public, or in a network that the operator allows."""
    plain = (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
    return is_public(plain) or any(plain in network for network in allowed)


def receiver(url: str, *, allowed: Collection[Network]) -> Receiver:
    """The URL taken apart. Raises Refused for one that is never posted to, as far as it can be told without DNS."""
    match = _URL.fullmatch(url)
    if match is None:
        raise Refused("Must be https://host[:port][/path], in ASCII, without user, password or fragment.")
    scheme, host, port, path = match.groups()
    if scheme == "http" and not allowed:
        raise Refused("Must be https.")
    number = int(port or {"https": 443, "http": 80}[scheme])
    if number not in {80, 443} and not 1024 <= number <= 65535:
        raise Refused("The port must be 80, 443 or from 1024 on.")
    host = host.strip("[]")
    literal = _literal(host)
    if literal is not None and not is_permitted(literal, allowed):
        raise Refused("The address is private, local or reserved.")
    return Receiver(scheme, host, number, path if path.startswith("/") else f"/{path}")


def _literal(host: str) -> Address | None:
    """The address that ``host`` is, in any form that a resolver takes for one: 127.1, 0x7f000001, …"""
    with suppress(ValueError):
        return ip_address(host)
    with suppress(OSError):
        return IPv4Address(socket.inet_aton(host))
    return None


def _resolve(host: str, port: int, *, within: float) -> list[str]:
    """The host's addresses. The system's resolver knows no deadline, so it is asked in a thread that may outlive us."""
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put([str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except Exception as error:  # whatever it is, it is for the one who asked
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        found = answers.get(timeout=within)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(found, Exception):
        raise found
    return found


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()  # the system's authorities, or SSL_CERT_FILE's
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    return context


class _Pinned(http.client.HTTPConnection):
    """A connection to one of the checked addresses, with the host's name in ``Host`` and in TLS."""

    def __init__(self, to: Receiver, addresses: list[str], deadline: float) -> None:
        super().__init__(to.host, to.port)
        self.default_port = 443 if to.scheme == "https" else 80
        self._to, self._addresses, self._deadline = to, addresses, deadline
        # A socket's timeout bounds each read only: one byte at a time could keep us for hours.
        self.watchdog = threading.Timer(deadline - time.monotonic(), self._cut)
        self.watchdog.daemon = True
        self._cuttable: socket.socket | None = None

    def connect(self) -> None:
        """Connect to the first that answers."""
        self.watchdog.start()
        for number, address in enumerate(self._addresses, 1):
            left = max(self._deadline - time.monotonic(), 0.01)
            try:
                self.sock = self._cuttable = socket.create_connection((address, self._to.port), timeout=left)
            except OSError:
                if number == len(self._addresses):
                    raise
            else:
                break
        if self._to.scheme == "https":
            name = self._to.host.rstrip(".")
            self.sock = _tls().wrap_socket(self.sock, server_hostname=name, do_handshake_on_connect=False)
            self._cuttable = self.sock
            self.sock.do_handshake()

    def _cut(self) -> None:
        if self._cuttable is not None:
            with suppress(OSError):  # closed already
                socket.socket.shutdown(self._cuttable, socket.SHUT_RDWR)


def post(url: str, body: bytes, headers: Mapping[str, str], *, allowed: Collection[Network]) -> Answer:
    """Send it once. No redirect is followed, no proxy used; never raises for what the receiver does."""
    started = time.monotonic()
    deadline = started + TIMEOUT_S
    status, retry_after, error = None, None, ""
    try:
        status, retry_after = _post(receiver(url, allowed=allowed), body, headers, allowed, deadline)
    except Refused:
        error = "forbidden_address"
    except (socket.gaierror, UnicodeError):
        error = "dns"
    except ssl.SSLError:
        error = "tls"
    except TimeoutError:
        error = "timeout"
    except OSError:
        error = "connection"
    except http.client.HTTPException:
        error = "protocol"
    if error and error != "forbidden_address" and time.monotonic() >= deadline:
        error = "timeout"  # whatever the cut connection looked like
    return Answer(status, error, round((time.monotonic() - started) * 1000), retry_after)


def _post(
    to: Receiver, body: bytes, headers: Mapping[str, str], allowed: Collection[Network], deadline: float
) -> tuple[int, str | None]:
    found = _resolve(to.host, to.port, within=deadline - time.monotonic())
    addresses = [address for address in found if is_permitted(ip_address(address), allowed)][:ADDRESSES_TRIED]
    if not addresses:
        raise Refused("The host's addresses are private, local or reserved.")
    connection = _Pinned(to, addresses, deadline)
    try:
        connection.request("POST", to.path, body, dict(headers))
        response = connection.getresponse()
        if time.monotonic() >= deadline:
            raise TimeoutError  # a connection that was cut looks like the end of the headers
        with suppress(OSError, http.client.HTTPException):  # it has said all that counts
            response.read(MOST_READ)
        return response.status, response.getheader("Retry-After")
    finally:
        connection.watchdog.cancel()
        connection.close()
