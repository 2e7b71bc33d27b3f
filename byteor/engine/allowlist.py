"""The allowlists of a replay's side effects: URL prefixes, which are parsed before they are compared, and programs."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Url:
    """A parsed http or https URL, with the parts that determine a request."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a URL. Raises ValueError if it is invalid or ambiguous."""
        # urlsplit would drop tabs and newlines, and a browser or server may read \ as /.
        if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
            raise ValueError("contains a character that is not allowed in a URL")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ValueError("is not a URL with a valid host and port") from None
        if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or port == 0:
            raise ValueError("must start with http:// or https://, and have a host, no user and no port 0")
        # Some servers also read ..;x as ..
        segments = unquote(parts.path).replace("\\", "/").split("/")
        if {".", ".."} & {segment.split(";")[0] for segment in segments}:
            raise ValueError("has a path with the segment . or ..")
        return cls(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], parts.path, parts.query)

    def covers(self, other: Url) -> bool:
        """Return whether ``other`` has the same scheme, host and port, and a path at or below this one."""
        path = self.path.rstrip("/")
        return (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port) and (
            path == other.path.rstrip("/") or other.path.startswith(path + "/")
        )


def parse_url_prefix(text: str) -> Url:
    """Parse an entry of an HTTP allowlist: ``scheme://host[:port][/path]``. Raises ValueError."""
    url = Url.parse(text)
    if {"?", "#", "*"} & set(text):
        raise ValueError("must have no query, fragment or wildcard")
    return url


def check_program(text: str) -> str:
    """Check an entry of an exec allowlist, the absolute path of a program, and return it. Raises ValueError."""
    is_normal = posixpath.normpath(text) == text and not text.startswith("//")  # normpath keeps two leading slashes
    if not text.startswith("/") or not is_normal or text == "/" or not text.isprintable():
        raise ValueError(
            "must be the absolute path of a program in printable characters, without the segments . and .. and "
            "without unneeded slashes"
        )
    return text


def permits_url(entries: Iterable[Url], text: str) -> bool:
    """Return whether an entry covers the URL. A URL that cannot be parsed is not permitted."""
    try:
        url = Url.parse(text)
    except ValueError:
        return False
    return any(entry.covers(url) for entry in entries)
