"""How a version runs, and what changed between two such configurations: each value, by its field and its path in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """How a version runs. The fields that are objects hold what their author chose, checked where it comes in."""

    tuning_profile: str
    wait: str
    stage_config: Mapping[str, Any]
    adapters: Mapping[str, Any]
    env: Mapping[str, Any]
    snapshot: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """Return the configuration as a config bundle hashes it and a deploy bundle carries it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """One value that was added, removed or changed, as JSON; a reference to a secret as ``secret_ref NAME``.

    ``what`` is the field, ``name`` the path below it with ``/`` between its parts, escaped as in a JSON Pointer.
    """

    change: Literal["added", "removed", "changed"]
    what: str
    name: str
    old: str | None
    new: str | None


def diff_configurations(old: RuntimeConfig | None, new: RuntimeConfig) -> tuple[ConfigChange, ...]:
    """Compare two; with None for the old one, everything in the new one was added."""
    before, after = {} if old is None else _values(old), _values(new)
    changes = []
    for at in sorted(before.keys() | after.keys()):
        was, now = before.get(at), after.get(at)
        if was is None:
            changes.append(ConfigChange("added", *at, None, now))
        elif now is None:
            changes.append(ConfigChange("removed", *at, was, None))
        elif was != now:
            changes.append(ConfigChange("changed", *at, was, now))
    return tuple(changes)


def _values(configuration: RuntimeConfig) -> dict[tuple[str, str], str]:
    """The leaves, by field and path: lists are one value each, and so is an object without members."""
    found: dict[tuple[str, str], str] = {}
    waiting: list[tuple[str, str, Any]] = [(field, "", value) for field, value in configuration.document().items()]
    while waiting:
        what, name, value = waiting.pop()
        reference = _secret(value)
        if reference is not None:
            found[what, name] = f"secret_ref {reference}"
        elif isinstance(value, dict) and value:
            for key, member in value.items():
                part = key.replace("~", "~0").replace("/", "~1")
                waiting.append((what, f"{name}/{part}" if name else part, member))
        elif value != {} or name:
            found[what, name] = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return found


def _secret(value: Any) -> str | None:
    if isinstance(value, dict) and value.keys() == {"secret_ref"} and isinstance(value["secret_ref"], str):
        return value["secret_ref"]
    return None
