"""The base class of the generated models."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, to_builtins


class Model(Struct, kw_only=True, dict=True):
    """An object of a request or a response. Unknown fields are ignored, and unknown enumeration values are kept."""

    @property
    def etag(self) -> str | None:
        """The resource's ETag, if the response had one. Pass it as ``if_match`` to detect concurrent edits."""
        found: str | None = vars(self).get("etag_header")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the object as JSON values."""
        found: dict[str, Any] = to_builtins(self)
        return found
