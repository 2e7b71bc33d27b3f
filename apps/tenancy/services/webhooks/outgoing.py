"""Send one POST request to a URL that a tenant chose: only to a permitted address, and in bounded time."""

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
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from byteor_cloud.config import Network

type IpAddress = IPv4Address | IPv6Address

TIMEOUT_S = 10.0
MAX_BYTES_READ = 4096
ADDRESSES_TRIED = 3
# The only parser of the URL for requests: two parsers could read different hosts from it. It permits no user info and
# no fragment.
_URL = re.compile(
    r"(https?)://([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?((?:[/?][!$-;=?-\[\]_a-z~]*)?)"
)
# The special-purpose networks of IANA's registries (iana-ipv4-special-registry and iana-ipv6-special-registry, as of
# 2025-10-09), with multicast and reserved space. The table is our own, because patch releases of Python changed which
# networks `ipaddress` counts as public. Some networks that the registries call globally reachable (such as
# 192.31.196.0/24) are infrastructure without receivers, so they are forbidden as well.
_SPECIAL_V4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared (carrier-grade NAT)
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # not in the registry: Azure's host services
        "169.254.0.0/16",  # link-local, including cloud metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # multicast tunneling
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
# The network of IPv6's global unicast addresses. Loopback, IPv4-compatible, unique local, link-local, site-local,
# segment routing (5f00::/16), discard-only (100::/64), local NAT64 (64:ff9b:1::/48) and multicast addresses are not in
# this network.
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


class ForbiddenReceiver(Exception):
    """The URL or address must not be posted to. The message is for the person who chose the URL."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """The parts of a receiver's URL."""

    scheme: str
    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class PostResult:
    """The result and duration of a POST: the response's status, ``Retry-After`` and first bytes, an error, or both."""

    status: int | None
    error: str
    duration_ms: int
    retry_after: str | None = None
    # The first bytes of the response, or fewer or none if reading failed. The receiver chose them: do not store or log
    # them unchecked.
    body: bytes = field(default=b"", repr=False)

    @property
    def is_success(self) -> bool:
        """Whether the receiver accepted the message."""
        return not self.error and self.status is not None and 200 <= self.status < 300


def is_public(address: IpAddress) -> bool:
    """Return whether the address is a public unicast address. It may be an IPv4 address written as IPv6."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    if address in _MAPPED or address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)


def is_permitted(address: IpAddress, allowed: Collection[Network]) -> bool:
    """Return whether the address is public, or in a network that the operator allows."""
    plain = (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
    return is_public(plain) or any(plain in network for network in allowed)


def parse_url(url: str, *, allowed: Collection[Network]) -> Receiver:
    """Return the URL's parts. Raises ForbiddenReceiver if the URL is forbidden; names are not resolved here."""
    match = _URL.fullmatch(url)
    if match is None:
        raise ForbiddenReceiver("Must be like https://host:443/path, in ASCII, without credentials or a fragment.")
    scheme, host, port, path = match.groups()
    if scheme == "http" and not allowed:
        raise ForbiddenReceiver("The URL must start with https://.")
    number = int(port or {"https": 443, "http": 80}[scheme])
    if number not in {80, 443} and not 1024 <= number <= 65535:
        raise ForbiddenReceiver("The port must be 80, 443, or between 1024 and 65535.")
    host = host.strip("[]")
    literal = _read_address(host)
    if literal is not None and not is_permitted(literal, allowed):
        raise ForbiddenReceiver("The address is private, local or reserved.")
    return Receiver(scheme, host, number, path if path.startswith("/") else f"/{path}")


def _read_address(host: str) -> IpAddress | None:
    """Return ``host`` as an address, or None for a name. Also reads the short forms of IPv4 (127.1, 0x7f000001)."""
    with suppress(ValueError):
        return ip_address(host)
    with suppress(OSError):
        return IPv4Address(socket.inet_aton(host))
    return None


def resolve(host: str, port: int, *, within: float) -> list[str]:
    """Return the host's addresses. Raises the resolver's error, or TimeoutError after ``within`` seconds.

    ``getaddrinfo`` accepts no timeout, so it runs in a thread, which may outlive this call.
    """
    results: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            results.put([str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except Exception as error:  # raised again below, in the calling thread
            results.put(error)

    threading.Thread(target=look_up, daemon=True).start()
    try:
        found = results.get(timeout=within)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(found, Exception):
        raise found
    return found


@cache
def tls_context() -> ssl.SSLContext:
    """Return the context of TLS connections to other servers, which checks their certificates."""
    context = ssl.create_default_context()  # the system's certificate authorities; SSL_CERT_FILE replaces their file
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    return context


class _PinnedConnection(http.client.HTTPConnection):
    """A connection to one of the checked addresses, with the host's name in ``Host`` and in TLS.

    If ``http.client`` resolved the name again, it could get another address than the one that was checked.
    """

    def __init__(self, receiver: Receiver, addresses: list[str], deadline: float) -> None:
        super().__init__(receiver.host, receiver.port)
        self.default_port = 443 if receiver.scheme == "https" else 80
        self._receiver, self._addresses, self._deadline = receiver, addresses, deadline
        # A socket's timeout applies to each read: a receiver that sends single bytes could block the worker for hours.
        self.watchdog = threading.Timer(deadline - time.monotonic(), self._shut_down)
        self.watchdog.daemon = True
        self._open_socket: socket.socket | None = None

    def connect(self) -> None:
        """Connect to the first address that accepts the connection. Raises OSError if none does."""
        self.watchdog.start()
        for number, address in enumerate(self._addresses, 1):
            left = max(self._deadline - time.monotonic(), 0.01)
            try:
                self.sock = self._open_socket = socket.create_connection((address, self._receiver.port), timeout=left)
            except OSError:
                if number == len(self._addresses):
                    raise
            else:
                break
        if self._receiver.scheme == "https":
            name = self._receiver.host.rstrip(".")
            self.sock = tls_context().wrap_socket(self.sock, server_hostname=name, do_handshake_on_connect=False)
            self._open_socket = self.sock
            self.sock.do_handshake()

    def _shut_down(self) -> None:
        if self._open_socket is not None:
            with suppress(OSError):  # the socket is already closed or disconnected
                socket.socket.shutdown(self._open_socket, socket.SHUT_RDWR)


def post(url: str, body: bytes, headers: Mapping[str, str], *, allowed: Collection[Network]) -> PostResult:
    """Post ``body`` once, without redirects or a proxy. Failures of the network or the receiver are in the result."""
    started = time.monotonic()
    deadline = started + TIMEOUT_S
    status, retry_after, content, error = None, None, b"", ""
    try:
        status, retry_after, content = _post(parse_url(url, allowed=allowed), body, headers, allowed, deadline)
    except ForbiddenReceiver:
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
        error = "timeout"  # the watchdog's shutdown may appear as another error
    return PostResult(status, error, round((time.monotonic() - started) * 1000), retry_after, content)


def _post(
    receiver: Receiver, body: bytes, headers: Mapping[str, str], allowed: Collection[Network], deadline: float
) -> tuple[int, str | None, bytes]:
    found = resolve(receiver.host, receiver.port, within=deadline - time.monotonic())
    addresses = [address for address in found if is_permitted(ip_address(address), allowed)][:ADDRESSES_TRIED]
    if not addresses:
        raise ForbiddenReceiver("The host's addresses are private, local or reserved.")
    connection = _PinnedConnection(receiver, addresses, deadline)
    try:
        connection.request("POST", receiver.path, body, dict(headers))
        response = connection.getresponse()
        if time.monotonic() >= deadline:
            raise TimeoutError  # http.client mistakes the watchdog's shutdown for the end of the headers
        content = b""
        with suppress(OSError, http.client.HTTPException):  # the status and the headers are enough
            content = response.read(MAX_BYTES_READ)
        return response.status, response.getheader("Retry-After"), content
    finally:
        connection.watchdog.cancel()
        connection.close()
