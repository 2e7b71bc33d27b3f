"""Views that declare their operations. The OpenAPI document is generated from these declarations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured

from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import Parameter


class DeclaringView:
    """A view with an ``Operation`` for each documented action, or for each documented method if it has no actions."""

    # The section of the OpenAPI document that lists the view's operations.
    tag: ClassVar[Tag]
    # The operations by action. A class lists only those that mixins handle; its decorated methods are added.
    operations: ClassVar[Mapping[str, Operation]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        members = {name: getattr(member, "operation", None) for name, member in vars(cls).items()}
        own = {name: found for name, found in members.items() if isinstance(found, Operation)}
        cls.operations = {**cls.operations, **own}

    @classmethod
    def check_declared(cls, action: str) -> None:
        """Raise ImproperlyConfigured if the action has no declaration or its declaration has no description."""
        operation = cls.operations.get(action)
        if operation is None or not operation.description:
            raise ImproperlyConfigured(f"{cls.__name__}.{action} needs an Operation with a summary and a description.")

    @classmethod
    def query_parameters(cls, action: str) -> Mapping[str, Parameter]:
        """Return the query parameters that ``action`` accepts."""
        return cls.operations[action].parameters
