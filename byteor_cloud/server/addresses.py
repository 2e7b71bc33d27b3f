"""The installation's URL, and the address of the running server."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from byteor_cloud.config import BindAddress, Config

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  a comparison, not a bind


def bracketed(host: str) -> str:
    """Return the host as used in URLs and by gunicorn, with an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def origin(address: BindAddress) -> str:
    """Return the URL at which this host reaches a server that is bound to ``address``."""
    host, port = address
    return f"http://{bracketed(_WILDCARDS.get(host, host))}:{port}"


def public_url(current: Config) -> str:
    """Return the installation's URL: the setting, the address of a running server, or the configured address."""
    if current.public_base_url:
        return current.public_base_url
    with contextlib.suppress(OSError, ValueError):
        host, _, port = _address_file(current).read_text().rpartition(" ")
        with socket.create_connection((_WILDCARDS.get(host, host), int(port)), timeout=1):
            return origin((host, int(port)))
    return origin(current.api_bind_addr)


@contextmanager
def publish_address(current: Config) -> Iterator[None]:
    """Write this server's address into the data folder while the block runs, for ``public_url`` in other processes."""
    host, port = current.api_bind_addr
    with contextlib.suppress(OSError):  # on a full disk, other processes use the settings
        _address_file(current).write_text(f"{host} {port}")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _address_file(current).unlink(missing_ok=True)


def _address_file(current: Config) -> Path:
    return current.data_dir / "serving"
