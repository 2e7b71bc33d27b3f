"""What side effects of a replay may reach: URLs below listed ones, and listed programs. Compared after parsing."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Url:
    """An http or https URL in the parts that a request is made of: what is compared is what is called."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URL. ``ValueError`` for one that two readers could understand in two ways."""
        # urlsplit would drop tabs and line ends, and a browser or server may take \ for /.
        if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
            raise ValueError("holds a character that no URL has")
        parts = urlsplit(text)
        port = parts.port
        if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or port == 0:
            raise ValueError("must be http:// or https:// with a host and no user")
        # Some servers read ..;x as .. too.
        segments = unquote(parts.path).replace("\\", "/").split("/")
        if {".", ".."} & {segment.split(";")[0] for segment in segments}:
            raise ValueError("has a path with . or .. in it")
        return cls(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], parts.path, parts.query)

    def covers(self, other: Url) -> bool:
        """Whether ``other`` is on the same origin, and at or below this path."""
        path = self.path.rstrip("/")
        return (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port) and (
            path == other.path.rstrip("/") or other.path.startswith(path + "/")
        )


def url_prefix(text: str) -> Url:
    """An entry of an HTTP allowlist: ``scheme://host[:port][/path]``. ``ValueError`` for anything else."""
    url = Url.parse(text)
    if {"?", "#", "*"} & set(text):
        raise ValueError("must have no query, fragment or wildcard")
    return url


def program(text: str) -> str:
    """An entry of an exec allowlist: the absolute path of a program. ``ValueError`` for anything else."""
    if not text.startswith("/") or posixpath.normpath(text) != text or text == "/" or not text.isprintable():
        raise ValueError("must be the absolute path of a program, without . or .. in it")
    return text


def permits_url(entries: Iterable[Url], text: str) -> bool:
    """Whether an entry covers the URL; one that cannot be read is covered by none."""
    try:
        url = Url.parse(text)
    except ValueError:
        return False
    return any(entry.covers(url) for entry in entries)
