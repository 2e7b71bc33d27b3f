"""The reference next to the plan editor, and the data from which the editor completes keys, ops and names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from apps.console.pages.pipelines.editor import TARGETS
from byteor.engine.compiler import plan_schema
from byteor.engine.replay import OpReference, reference_of
from byteor_cloud.computing.computations import installed_ops


class PlanKey(NamedTuple):
    """A key of a plan: its path, such as ``stages[].id``, whether it is required, and what its value may be.

    ``default`` is JSON, and empty if the key has no default.
    """

    path: str
    is_required: bool
    value: str
    default: str


@dataclass(frozen=True, slots=True)
class PlanReference:
    """The keys of every plan, the keys of each target's payload, and the ops. ``completions`` is data for the editor.

    ``completions`` has the JSON Schema of plans and, for each op, an example and a summary.
    """

    common: list[PlanKey]
    targets: dict[str, list[PlanKey]]
    ops: list[OpReference]
    completions: dict[str, Any]


def plan_reference() -> PlanReference:
    """Return the reference of the plan format and of the installed ops."""
    schema = plan_schema()
    ops = list(reference_of(installed_ops()).values())
    return PlanReference(
        common=[each for each in _keys(schema, "") if each.path.split(".")[0] not in TARGETS],
        targets={target: list(_keys(schema["properties"][target], "")) for target in TARGETS},
        ops=ops,
        completions={"schema": schema, "ops": [{"text": each.example, "note": each.summary} for each in ops]},
    )


def _keys(schema: Mapping[str, Any], above: str) -> Iterator[PlanKey]:
    """Yield the keys of an object, each followed by the keys within its value."""
    required = schema.get("required", [])
    for name, value in schema.get("properties", {}).items():
        path = f"{above}{name}"
        default = json.dumps(value["default"]) if "default" in value else ""
        yield PlanKey(path, name in required, _describe(value), default)
        yield from _keys(value, f"{path}.")
        yield from _keys(value.get("items", {}), f"{path}[].")


def _describe(value: Mapping[str, Any]) -> str:
    """Return what a value may be: its description, with its options or limits."""
    options = value.get("enum") or value.get("items", {}).get("enum")
    if options:
        return f"{value['description']}: {', '.join(options)}"
    if "minimum" in value and value["minimum"] != value["maximum"]:
        return f"{value['description']}: {value['minimum']:,} to {value['maximum']:,}"
    return str(value["description"])
