"""Describes the ops and their parameters to people who write plans and configurations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from byteor.engine.compiler import SIDE_EFFECTS, Ops, split_op
from byteor.engine.replay import dataguard

_ALLOWLISTS: Mapping[str, Mapping[str, Any]] = {
    "http_post": {"items": {"type": "string", "title": "URL prefix"}, "examples": [["http://127.0.0.1:9000/hook"]]},
    "exec": {"items": {"type": "string", "title": "Program"}, "examples": [["/usr/bin/tr"]]},
}


@dataclass(frozen=True, slots=True)
class OpReference:
    """The reference of an op: its key, an example of the op, what it does, and the JSON Schema of its parameters.

    ``parameters`` is None if a package declares no usable schema, or if the op is not installed.
    """

    key: str
    example: str
    summary: str
    parameters: Mapping[str, Any] | None

    @property
    def example_text(self) -> str:
        """The example of the parameters as indented JSON, or an empty string."""
        examples = (self.parameters or {}).get("examples")
        return json.dumps(examples[0], indent=2) if isinstance(examples, list) and examples else ""

    @property
    def takes_no_parameters(self) -> bool:
        """Whether the schema declares an empty object. False if it describes the members in another way."""
        schema = dict(self.parameters or {})
        is_closed = schema.pop("additionalProperties", False) is False
        return is_closed and schema == {"type": "object", "properties": {}}

    @property
    def described_parameters(self) -> list[tuple[str, bool, str]]:
        """The name of each parameter, whether it is required, and its description, which may be empty."""
        schema = self.parameters or {}
        properties, required = schema.get("properties"), schema.get("required")
        if not isinstance(properties, Mapping):
            return []
        if not isinstance(required, list | tuple):  # a package may declare anything
            required = ()
        return [
            (name, name in required, str(each.get("description", "")) if isinstance(each, Mapping) else "")
            for name, each in properties.items()
        ]


def reference_of(ops: Ops) -> dict[str, OpReference]:
    """Return the reference of each op by its key."""
    return {each.key: OpReference(*each, parameters=_parameters(each.key, ops)) for each in ops.summaries()}


def find_reference(references: Mapping[str, OpReference], op: str) -> OpReference:
    """Return the reference of a stage's op. An op that is not installed here has no summary and no parameters."""
    key, _ = split_op(op)
    return references.get(key) or OpReference(key, op, "", None)


def _parameters(key: str, ops: Ops) -> Mapping[str, Any] | None:
    if key in dataguard.OPS:
        return dataguard.parameters_schema(key)
    if key in SIDE_EFFECTS:
        allowlist = {
            "type": "array",
            "title": "Allowlist",
            "description": "the only targets that this stage may reach in a replay that executes side effects; "
            "the server's own allowlist must permit them too",
            **_ALLOWLISTS[key],
        }
        example = {"allowlist": allowlist["examples"][0]}
        return {"type": "object", "properties": {"allowlist": allowlist}, "examples": [example]}
    if key in ops.stages:
        return ops.declared_parameters(key)
    return {"type": "object", "properties": {}}  # the other built-in ops have no parameters
