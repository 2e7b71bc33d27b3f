"""Query parameters that the lists of several resources share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from django.db.models import Q

from byteor_cloud.api.parameters import Parameter, line_parameter, time_parameter
from byteor_cloud.patterns import matcher

BY_CREATION: Mapping[str, Parameter] = {
    "created_after": time_parameter(
        "created_at__gte", description="Returns only {rows} created at or after this time."
    ),
    "created_before": time_parameter("created_at__lt", description="Returns only {rows} created before this time."),
}
BY_NAME: Mapping[str, Parameter] = {
    **BY_CREATION,
    "name": line_parameter("name__icontains", description="Returns only {rows} whose name contains this text."),
}
_KEY = r"[^=,\u0000-\u001f\u007f-\u009f\u2028\u2029]{1,128}"
_VALUE = r"[^,\u0000-\u001f\u007f-\u009f\u2028\u2029]{0,255}"
_TERM = f"({_KEY}={_VALUE}|!?{_KEY})"
_LABELS = f"^{_TERM}(,{_TERM}){{0,63}}$"
_is_labels = matcher(_LABELS)


def _read_labels(text: str) -> list[str]:
    if not _is_labels(text):
        raise ValueError(
            "Must be 1 to 64 conditions separated by commas, each of the form key=value, key or !key. A key has 1 to "
            "128 characters, and a value at most 255, without line breaks and control characters."
        )
    return text.split(",")


def _has_labels(column: str, given: Iterable[Iterable[str]]) -> Q:
    """Return the condition that the labels in the JSON ``column`` match all terms."""
    condition, equal = Q(), dict[str, str]()
    for term in (term for terms in given for term in terms):
        key, has_value, value = term.partition("=")
        if has_value:
            if equal.setdefault(key, value) != value:
                return Q(pk__in=[])  # a label has only one value, so no row matches
        elif key.startswith("!") and key != "!":
            condition &= ~Q(**{f"{column}__has_key": key[1:]})
        else:
            condition &= Q(**{f"{column}__has_key": key})
    return condition & Q(**{f"{column}__contains": equal}) if equal else condition


def label_parameter(column: str) -> Parameter:
    """Return the parameter ``?label=key=value``, ``?label=key`` or ``?label=!key`` on labels in a JSON ``column``."""
    return Parameter(
        schema={"type": "string", "pattern": _LABELS},
        read=_read_labels,
        condition=lambda given: _has_labels(column, given),
        max_times=20,
        description="Returns only {rows} that have this label with this value (`key=value`), have it with any value "
        "(`key`), or do not have it (`!key`). To combine conditions, repeat the parameter, or separate the conditions "
        "by commas. Returns only {rows} that meet all conditions.",
    )
