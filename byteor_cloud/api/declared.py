"""What a view declares about itself. The OpenAPI document is made from it, and the law tests hold the view to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from byteor_cloud.api.parameters import Parameter
from byteor_cloud.errors import DomainError, Forbidden, NotFound, TooManyRequests, Unauthenticated, Unavailable

type Errors = tuple[type[DomainError], ...]


class DeclaredView:
    """A view for callers with a credential.

    ``errors`` and ``verbs`` are by action. What a class declares adds to what its mixins and bases declare.
    """

    # Checking the credential, the rate limit and what the path names can end in these, whatever the action.
    common_errors: ClassVar[Errors] = (Unauthenticated, Forbidden, NotFound, TooManyRequests, Unavailable)
    # What else an action may answer with, beside what the server refuses by the request's method and size.
    errors: ClassVar[Mapping[str, Errors]] = {}
    # The verb of a summary, for actions that a mixin implements and so cannot describe.
    verbs: ClassVar[Mapping[str, str]] = {}
    # Actions whose answer holds a secret: kept encrypted for ten minutes only, under an Idempotency-Key.
    secret_actions: ClassVar[frozenset[str]] = frozenset()
    # Whether a POST can be made repeatable.
    takes_idempotency_key: ClassVar[bool] = True
    permissions: ClassVar[Mapping[str, Any]] = {}
    # JSON Schemas by name, for bodies that no serializer describes.
    schemas: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def families(cls, action: str) -> Sequence[str]:
        """The families of credential that ``action`` takes."""
        raise NotImplementedError  # pragma: no cover  every subclass says it

    @classmethod
    def query_parameters(cls, action: str) -> Mapping[str, Parameter]:
        """The query parameters that ``action`` takes."""
        return {}

    @classmethod
    def is_list(cls, action: str) -> bool:
        """Whether ``action`` answers with a page of rows."""
        return action == "list"

    @classmethod
    def errors_of(cls, action: str) -> frozenset[type[DomainError]]:
        """The errors that ``action`` may answer with."""
        return frozenset(cls.common_errors).union(*cls._declared("errors", action))

    @classmethod
    def verb_of(cls, action: str) -> str | None:
        """What ``action`` does to a row, in a word; None when its own docstring says it."""
        return None if action in vars(cls) else next(cls._declared("verbs", action), None)

    @classmethod
    def _declared(cls, name: str, action: str) -> Iterator[Any]:
        for base in cls.__mro__:
            by_action = vars(base).get(name, {})
            if action in by_action:
                yield by_action[action]
