"""The checks of a new runtime configuration, and the hash that identifies it. Does not use Django."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from byteor.engine.allowlist import check_program, parse_url_prefix
from byteor.engine.compiler import SIDE_EFFECTS, split_op
from byteor.engine.configuration import RuntimeConfig, hash_configuration, required_capabilities
from byteor.engine.replay import NO_PARAMETERS, dataguard, stages_without_parameters
from byteor_cloud.errors import MAX_FIELD_ERRORS, FieldError, child_pointer

_ALLOWLIST_ENTRY: dict[str, Callable[[str], object]] = {"http_post": parse_url_prefix, "exec": check_program}
_SECRET = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bbor_(usr|org|enr|agt|lnk|dev)_[0-9A-Za-z]{20,}")


def _find_secrets(value: Any, pointer: str) -> list[FieldError]:
    """Return errors for values that look like a private key or one of our credentials, until there are too many."""
    found: list[FieldError] = []
    # Keep the path of each container, so that a JSON Pointer is built only where a secret is found.
    waiting: list[tuple[Any, _Path]] = [({pointer[1:]: value}, None)]
    while waiting and len(found) <= MAX_FIELD_ERRORS:
        container, path = waiting.pop()
        for key, item in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(item, (dict, list)):
                waiting.append((item, (path, key)))
            elif isinstance(item, str) and _SECRET.search(item):
                detail = (
                    'Looks like a secret. Only env can refer to secrets: {"secret_ref": "NAME"}, which the agent '
                    "resolves on its host."
                )
                found.append(FieldError(_pointer((path, key)), "secret", detail))
    return found


type _Path = tuple[_Path, str | int] | None


def _pointer(path: _Path) -> str:
    parts: list[str | int] = []
    while path is not None:
        path, part = path
        parts.append(part)
    pointer = ""
    for part in reversed(parts):
        pointer = child_pointer(pointer, part)
    return pointer


def _stage_errors(stages: Mapping[str, str], stage_config: Mapping[str, Any]) -> list[FieldError]:
    errors: list[FieldError] = []
    for stage_id, params in stage_config.items():
        pointer = child_pointer("/stage_config", stage_id)
        if len(errors) > MAX_FIELD_ERRORS:
            break
        if stage_id not in stages:
            more = f" and {len(stages) - 20} more" if len(stages) > 20 else ""
            known = ", ".join(sorted(stages)[:20]) + more or "none"
            errors.append(FieldError(pointer, "unknown_stage", f"The version has no such stage. Its stages: {known}."))
        elif not isinstance(params, dict):
            errors.append(FieldError(pointer, "invalid", "Must be an object."))
        elif split_op(stages[stage_id])[0].startswith("dataguard_"):
            found = dataguard.check_params(stages[stage_id], params)
            errors += [FieldError(pointer + e.pointer, e.code, e.detail) for e in found]
        elif (kind := split_op(stages[stage_id])[0]) in SIDE_EFFECTS and params.get("allowlist") is not None:
            errors += _allowlist_errors(kind, params["allowlist"], child_pointer(pointer, "allowlist"))
    return errors


def _allowlist_errors(kind: str, entries: Any, pointer: str) -> list[FieldError]:
    """Return the errors of an allowlist. Otherwise they would go unnoticed until a replay denies side effects."""
    if not isinstance(entries, list):
        return [FieldError(pointer, "invalid", "Must be a list.")]
    errors = []
    for index, entry in enumerate(entries):
        try:
            _ALLOWLIST_ENTRY[kind](entry if isinstance(entry, str) else "")
        except ValueError as error:
            errors.append(FieldError(f"{pointer}/{index}", "invalid", f"The entry {error}."))
    return errors


class ConfigWarning(NamedTuple):
    """Something in a configuration that is valid but probably a mistake. It has the fields of an error."""

    code: str
    pointer: str
    detail: str


def find_warnings(stages: Iterable[tuple[str, str]], stage_config: Mapping[str, Any]) -> list[ConfigWarning]:
    """Return warnings for stages that the configuration leaves without parameters, at most ``MAX_FIELD_ERRORS``."""
    found = stages_without_parameters(stages, stage_config)[:MAX_FIELD_ERRORS]
    return [
        ConfigWarning(
            NO_PARAMETERS,
            child_pointer("/stage_config", id),
            f"The stage {id} ({op}) has no parameters. It lets every record pass unchanged.",
        )
        for id, op in found
    ]


class CheckedConfiguration(NamedTuple):
    """The outcome of a check: either ``detail`` and ``errors`` describe what is wrong, or the other fields are set."""

    detail: str | None
    errors: list[FieldError]
    config_hash: str = ""
    capabilities: list[str] = []


def check_runtime_config(stages: Mapping[str, str], spec_hash: str, config: RuntimeConfig) -> CheckedConfiguration:
    """Check and hash a runtime configuration. ``stages`` are the version's ops by stage id."""
    errors = [
        *_stage_errors(stages, config.stage_config),
        *_find_secrets(config.stage_config, "/stage_config"),
        *_find_secrets(config.adapters, "/adapters"),
        *_find_secrets(config.env, "/env"),
    ]
    if errors:
        return CheckedConfiguration(" ".join(e.detail for e in errors[:3]), errors)
    capabilities = required_capabilities(stages.values())
    try:
        config_hash = hash_configuration(spec_hash, config.document(), capabilities)
    except ValueError as error:
        return CheckedConfiguration(f"The configuration {error}.", [])  # "cannot be written as canonical JSON: ..."
    return CheckedConfiguration(None, [], config_hash, capabilities)
