"""Query parameters of lists that several resources share."""

from __future__ import annotations

from collections.abc import Mapping

from byteor_cloud.api.parameters import Parameter, line_parameter, matcher, time_parameter

BY_CREATION: Mapping[str, Parameter] = {
    "created_after": time_parameter("created_at__gte", description="Only resources created at this time or later."),
    "created_before": time_parameter("created_at__lt", description="Only resources created before this time."),
}
BY_NAME: Mapping[str, Parameter] = {
    **BY_CREATION,
    "name": line_parameter("name__icontains", description="Only resources whose name contains this text."),
}
LABEL = r"[^=,\u0000-\u001f\u007f-\u009f\u2028\u2029]{1,128}=[^,\u0000-\u001f\u007f-\u009f\u2028\u2029]{0,255}"


def _read_labels(text: str) -> dict[str, str]:
    if not _is_labels(text):
        raise ValueError("Must be key=value, or several of these separated by commas.")
    return dict(part.split("=", 1) for part in text.split(","))


_LABELS = f"^{LABEL}(,{LABEL}){{0,63}}$"
_is_labels = matcher(_LABELS)


def label_parameter(column: str) -> Parameter:
    """Return the parameter ``?label=key=value,key=value``: only rows whose JSON ``column`` has all these labels."""
    return Parameter(
        schema={"type": "string", "pattern": _LABELS},
        read=_read_labels,
        lookup=f"{column}__contains",
        description="Only resources with this label, written `key=value`. Separate several by commas; all must match.",
    )
