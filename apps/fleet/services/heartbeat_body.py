"""The body of a heartbeat. One JSON Schema is the source of the OpenAPI components and of the checks.

The checks are compiled functions, since a serializer is too slow for thousands of heartbeats a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from apps.fleet.models import Heartbeat
from byteor_cloud.api.parameters import SHA256, matcher
from byteor_cloud.errors import FieldError, InvalidInput, child_pointer
from byteor_cloud.ids import read_id

_MAX_VERSION = 64
_HASH = {"type": "string", "minLength": 1, "pattern": SHA256}
_OBJECT = {"type": ["object", "null"], "additionalProperties": {}}
BOOT_ID = {
    "type": ["string", "null"],
    "maxLength": 64,
    "description": "An id of the agent's process, new at each start. So two machines with one key are told apart.",
}
_ACTIVE = {
    "type": "object",
    "description": "The bundle that the agent runs.",
    "properties": {
        "deployment_id": {
            "type": "string",
            "format": "uuid",
            "description": ("The deployment that the bundle belongs to."),
        },
        "bundle_hash": {**_HASH, "description": "The SHA-256 of the deploy bundle."},
        "spec_hash": {**_HASH, "description": "The spec hash of the pipeline."},
    },
    "required": ["bundle_hash", "deployment_id", "spec_hash"],
    "additionalProperties": False,
}
_BODY = {
    "type": "object",
    "description": "The body of a heartbeat.",
    "properties": {
        "status": {"enum": Heartbeat.Status.values, "type": "string", "description": "The agent's health."},
        "agent_version": {
            "type": "string",
            "minLength": 1,
            "maxLength": _MAX_VERSION,
            "description": "The version of the agent program.",
        },
        "runtime_version": {
            "type": ["string", "null"],
            "maxLength": _MAX_VERSION,
            "description": "The version of the pipeline runtime.",
        },
        "uptime_s": {
            "type": ["number", "null"],
            "format": "double",
            "minimum": 0,
            "description": "Seconds since the agent started.",
        },
        "boot_id": BOOT_ID,
        "active": {
            "oneOf": [{"$ref": "#/components/schemas/ActiveRequest"}, {"type": "null"}],
            "description": "The bundle that the agent runs. Null if it runs none.",
        },
        "tuning": {**_OBJECT, "description": "How much of the tuning profile the agent could apply."},
        "resources": {
            **_OBJECT,
            "description": (
                "The use of the host's resources: `cpu_percent`, `memory_bytes`, `disk_free_bytes` and others."
            ),
        },
        "pipeline": {
            **_OBJECT,
            "description": "Counters of the pipeline: `records_in`, `records_out`, `drops`, `errors`.",
        },
    },
    "required": ["agent_version", "status"],
    "additionalProperties": False,
}
SCHEMAS = {"HeartbeatRequest": _BODY, "ActiveRequest": _ACTIVE}
"""The components of the OpenAPI document for the body of a heartbeat."""


@dataclass(frozen=True, slots=True)
class HeartbeatBody:
    """A checked heartbeat body."""

    status: str
    agent_version: str
    deployment_id: UUID | None
    bundle_hash: str | None
    spec_hash: str | None
    boot_id: str | None
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Check:
    """The check of one field, with the error for a value that fails it."""

    passes: Callable[[Any], bool]
    detail: str
    code: str = "invalid"


def _check(schema: Mapping[str, Any]) -> _Check:
    """Compile the check of one field from its JSON Schema."""
    match schema:
        case {"enum": [*values]}:
            known = frozenset(values)
            detail = f"Must be one of {', '.join(sorted(known))}."
            return _Check(lambda value: isinstance(value, str) and value in known, detail, "invalid_choice")
        case {"pattern": pattern}:
            matches = matcher(pattern)
            return _Check(lambda value: isinstance(value, str) and matches(value), "Must be sha256:<64 lowercase hex>.")
        case {"maxLength": most, "minLength": least}:
            detail = f"Must be a string of {least} to {most} characters."
            return _Check(lambda value: isinstance(value, str) and least <= len(value) <= most, detail)
        case {"maxLength": most}:
            detail = f"Must be a string of at most {most} characters."
            return _Check(lambda value: value is None or (isinstance(value, str) and len(value) <= most), detail)
        case {"minimum": least}:
            return _Check(
                lambda value: value is None or (type(value) in {int, float} and value >= least),
                "Must be a number of seconds.",
            )
        case {"type": ["object", "null"]}:
            return _Check(lambda value: value is None or isinstance(value, dict), "Must be an object.")
    raise AssertionError(f"no check for {schema}")


def _checks(schema: Any, *, except_field: str) -> dict[str, _Check]:
    """Compile the checks of an object's fields, except one field that ``parse`` checks itself."""
    return {name: _check(field) for name, field in schema["properties"].items() if name != except_field}


_BODY_CHECKS = _checks(_BODY, except_field="active")
_ACTIVE_CHECKS = _checks(_ACTIVE, except_field="deployment_id")
_REPORT_FIELDS = [name for name in _BODY_CHECKS if name not in {"status", "agent_version", "boot_id"}]


def parse(body: Any) -> HeartbeatBody:
    """Check and parse the body of a heartbeat. Raises InvalidInput with all errors."""
    if not isinstance(body, dict):
        raise InvalidInput.at("", "Must be an object.")
    errors = _find_errors(body, _BODY_CHECKS, "", "active")
    deployment_id = bundle_hash = spec_hash = None
    active = body.get("active")
    if isinstance(active, dict):
        errors += _find_errors(active, _ACTIVE_CHECKS, "/active", "deployment_id")
        bundle_hash, spec_hash = active.get("bundle_hash"), active.get("spec_hash")
        try:
            deployment_id = read_id(active["deployment_id"])
        except (KeyError, ValueError, TypeError):
            errors.append(FieldError("/active/deployment_id", "invalid", "Must be an id."))
    elif active is not None:
        errors.append(FieldError("/active", "invalid", "Must be an object or null."))
    if errors:
        raise InvalidInput("; ".join(e.detail for e in errors[:3]), errors=errors)
    report = {name: body[name] for name in _REPORT_FIELDS if body.get(name) is not None}
    boot_id = body.get("boot_id") or None
    return HeartbeatBody(body["status"], body["agent_version"], deployment_id, bundle_hash, spec_hash, boot_id, report)


def _find_errors(
    body: Mapping[str, Any], checks: Mapping[str, _Check], pointer: str, except_field: str
) -> list[FieldError]:
    unknown = sorted(body.keys() - checks.keys() - {except_field})
    errors = [FieldError(child_pointer(pointer, key), "unknown_field", "Unknown field.") for key in unknown]
    for name, check in checks.items():
        if not check.passes(body.get(name)):
            errors.append(FieldError(f"{pointer}/{name}", check.code, check.detail))
    return errors
