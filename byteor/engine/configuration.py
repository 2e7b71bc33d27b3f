"""The runtime configuration of a version, its hash, and the difference between two configurations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from byteor.engine.canonical import canonical, sha256
from byteor.engine.compiler import SIDE_EFFECTS, split_op


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """The settings with which a version runs. The values are not checked here."""

    tuning_profile: str
    wait: str
    stage_config: Mapping[str, Any]
    adapters: Mapping[str, Any]
    env: Mapping[str, Any]
    snapshot: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """Return the JSON data that the config hash covers and that deploy bundles contain."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def required_capabilities(ops: Iterable[str]) -> list[str]:
    """Return the sorted capabilities that a version with these ops needs."""
    keys = {split_op(op)[0] for op in ops}
    return sorted({"deploy", *(f"side_effect:{key}" for key in keys & SIDE_EFFECTS)})


def hash_configuration(spec_hash: str, config: Mapping[str, object], capabilities: Sequence[str]) -> str:
    """Return the config hash. For a config bundle, ``config`` is the document of its RuntimeConfig.

    Raises ValueError if the configuration cannot be written as canonical JSON.
    """
    return sha256(canonical({**config, "spec_hash": spec_hash, "required_capabilities": list(capabilities)}))


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """One value that was added, removed or changed.

    ``what`` is the field, and ``name`` is the path inside it: keys joined by ``/``, escaped as in a JSON Pointer. The
    path is empty for the whole field.
    ``old`` and ``new`` are the values as JSON, ``secret_ref NAME`` for a reference to a secret, or None for no value.
    """

    change: Literal["added", "removed", "changed"]
    what: str
    name: str
    old: str | None
    new: str | None


def diff_configurations(old: RuntimeConfig | None, new: RuntimeConfig) -> tuple[ConfigChange, ...]:
    """Compare two runtime configurations. If ``old`` is None, every value of ``new`` is added."""
    before, after = {} if old is None else _values(old), _values(new)
    changes = []
    for field_and_path in sorted(before.keys() | after.keys()):
        was, now = before.get(field_and_path), after.get(field_and_path)
        if was is None:
            changes.append(ConfigChange("added", *field_and_path, None, now))
        elif now is None:
            changes.append(ConfigChange("removed", *field_and_path, was, None))
        elif was != now:
            changes.append(ConfigChange("changed", *field_and_path, was, now))
    return tuple(changes)


def _values(configuration: RuntimeConfig) -> dict[tuple[str, str], str]:
    """Return each value as text, by field and path. A list, or an empty object inside a field, is one value."""
    values: dict[tuple[str, str], str] = {}
    # A loop instead of recursion, because a configuration may be deeply nested.
    pending: list[tuple[str, str, Any]] = [(field, "", value) for field, value in configuration.document().items()]
    while pending:
        what, name, value = pending.pop()
        secret = _secret_name(value)
        if secret is not None:
            values[what, name] = f"secret_ref {secret}"
        elif isinstance(value, dict) and value:
            for key, member in value.items():
                part = key.replace("~", "~0").replace("/", "~1")
                pending.append((what, f"{name}/{part}" if name else part, member))
        elif value != {} or name:
            values[what, name] = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return values


def _secret_name(value: Any) -> str | None:
    if isinstance(value, dict) and value.keys() == {"secret_ref"} and isinstance(value["secret_ref"], str):
        return value["secret_ref"]
    return None
