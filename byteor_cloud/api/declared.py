"""The declarations of a view. The OpenAPI document is generated from them, and law tests check the views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from byteor_cloud.api.parameters import Parameter
from byteor_cloud.errors import DomainError, Forbidden, NotFound, TooManyRequests, Unauthenticated, Unavailable

type Errors = tuple[type[DomainError], ...]


class DeclaredView:
    """A view for callers with a credential.

    ``errors`` are keyed by action. A class adds to the declarations of its mixins and bases.
    """

    # Any action can end in these errors, which come from checking the credential, the rate limit and the path.
    common_errors: ClassVar[Errors] = (Unauthenticated, Forbidden, NotFound, TooManyRequests, Unavailable)
    # Further errors of an action. Errors of the request's method and size apply to all and are not listed.
    errors: ClassVar[Mapping[str, Errors]] = {}
    # Actions whose response contains a secret. With an Idempotency-Key the response is stored for ten minutes only.
    secret_actions: ClassVar[frozenset[str]] = frozenset()
    # Whether a POST accepts an Idempotency-Key.
    takes_idempotency_key: ClassVar[bool] = True
    permissions: ClassVar[Mapping[str, Any]] = {}
    # JSON Schemas by name, for bodies that no serializer describes.
    schemas: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def families(cls, action: str) -> Sequence[str]:
        """Return the credential families that ``action`` accepts."""
        raise NotImplementedError  # pragma: no cover  every subclass overrides it

    @classmethod
    def query_parameters(cls, action: str) -> Mapping[str, Parameter]:
        """Return the query parameters that ``action`` accepts."""
        return {}

    @classmethod
    def is_list(cls, action: str) -> bool:
        """Return whether ``action`` responds with a page of rows."""
        return action == "list"

    @classmethod
    def errors_of(cls, action: str) -> frozenset[type[DomainError]]:
        """Return the errors that ``action`` can raise."""
        return frozenset(cls.common_errors).union(*cls._declared_errors(action))

    @classmethod
    def _declared_errors(cls, action: str) -> Iterator[Errors]:
        for base in cls.__mro__:
            by_action = vars(base).get("errors", {})
            if action in by_action:
                yield by_action[action]
