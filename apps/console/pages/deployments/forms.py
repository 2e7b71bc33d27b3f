"""The base of the forms for config bundles and deployments, which the API's serializers validate, and a JSON field."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from rest_framework.exceptions import APIException
from rest_framework.serializers import Serializer
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.console.frame.forms import CheckedForm
from apps.tenancy.models import Environment
from byteor.engine.strict_json import JsonLimits, MalformedJson, read_object
from byteor_cloud.api import problems
from byteor_cloud.errors import DomainError


class JsonField(forms.CharField):
    """A field for a JSON object, which people enter as text. Its value is None if the text is empty."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 4}), **kwargs)

    def clean(self, value: Any) -> dict[str, Any] | None:
        """Parse the object. Raises ValidationError if ``read_object`` refuses the text."""
        text = super().clean(value)
        try:
            return read_object(text, JsonLimits()) if text else None
        except MalformedJson as error:
            raise ValidationError(str(error)) from None

    def prepare_value(self, value: Any) -> Any:
        """Return the text of an initial value."""
        return json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, Mapping) else value


class ApiForm(CheckedForm):
    """A form whose values become a request body of the API, which the API's serializer and the service validate."""

    def send(
        self, serializer: type[Serializer[Any]], body: Mapping[str, Any], environment: Environment,
        use: Callable[[dict[str, Any]], Any],
    ) -> Any:  # fmt: skip
        """Validate the body and return the result of ``use``. On an error, show it in the form and return None."""
        checked = serializer(data=body, context={"view": SimpleNamespace(environment=environment)})
        try:
            checked.is_valid(raise_exception=True)
            return use(dict(checked.validated_data))
        except (DomainError, APIException, IntegrityError) as error:
            self.show(problems.as_domain_error(error))
        return None

    def named(self, *names: str) -> Iterator[forms.BoundField]:
        """Yield the fields with these names."""
        return (self[name] for name in names)
