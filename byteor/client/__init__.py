"""The typed client of the API, blocking (``ByteOr``) and asynchronous (``AsyncByteOr``).

>>> with ByteOr("https://byteor.example.com", token) as client:
...     prod = client.environment(org_id, project_id, environment_id)
...     for agent in prod.list_agents(status="failed"):
...         print(agent.name)

Each operation in the API document is a method at its level, such as an environment: ``createDeployment`` is
``client.environment(…).create_deployment(…)``. Iterating over a list requests one page after another. A failed
request raises an exception of ``byteor.client.errors``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from byteor.client.errors import (
    ApiError,
    ByteOrError,
    Conflict,
    ConnectionFailed,
    EditConflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnexpectedResponse,
)

if TYPE_CHECKING:
    from byteor.client.async_client import AsyncByteOr
    from byteor.client.client import ByteOr
    from byteor.client.request import OMITTED

__all__ = [
    "OMITTED", "ApiError", "AsyncByteOr", "ByteOr", "ByteOrError", "Conflict", "ConnectionFailed", "EditConflict",
    "Forbidden", "InvalidRequest", "NotFound", "TooManyRequests", "Unauthorized", "Unavailable", "UnexpectedResponse",
]  # fmt: skip
_LAZY = {"AsyncByteOr": "async_client", "ByteOr": "client", "OMITTED": "request"}

if not TYPE_CHECKING:  # otherwise type checkers would accept every name

    def __getattr__(name: str) -> Any:
        """Import a name when it is first used, so that a blocking program does not load the asynchronous client."""
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        return found
