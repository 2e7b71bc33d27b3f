"""Example bodies for the OpenAPI document, generated from the schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from byteor_cloud.api.operations import HASH, ID

JSON = "application/json"
_BY_NAME = {
    "name": "quotes", "email": "ada@example.com", "slug": "acme", "next": None, "previous": None, "number": 3,
    "hostname": "edge-1", "reason": "p99 latency doubled", "role": "operator", "revision": 4, "pipeline": "quotes",
    "agent_version": "0.1.0", "actor": "ada@example.com", "requested_by": "ada@example.com", "request_id": ID,
    "created_by": "ada@example.com", "updated_by": "ada@example.com", "decided_by": "ada@example.com",
    "ip": "192.0.2.7",
}  # fmt: skip
PLAN_EXAMPLE = {
    "plan_v": 1,
    "name": "quotes",
    "target": "single_ring",
    "single_ring": {
        "ingress": "quotes_in",
        "egress": "quotes_out",
        "stages": [{"id": "decode", "op": "identity"}],
    },
}


def example(schema: Mapping[str, Any], components: Mapping[str, Any], name: str = "") -> Any:
    """Return a plausible value for a schema: one that the schema states, or one chosen by its name, format or type."""
    if "$ref" in schema:
        target = schema["$ref"].rsplit("/", 1)[1]
        return PLAN_EXAMPLE if target == "Plan" else example(components[target], components, name)
    for key in ("example", "default", "const"):
        if key in schema:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("oneOf", "anyOf", "allOf"):
        if key in schema:
            return example(schema[key][0], components, name)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if kind == "object":
        return {
            name: example(child, components, name)
            for name, child in schema.get("properties", {}).items()
            if child.keys() != {"description"}  # read-only fields of an update have only a description
        }
    if kind == "array":
        return [example(schema.get("items", {}), components, name)] * max(schema.get("minItems", 1), 1)
    if name in _BY_NAME:
        return _BY_NAME[name]
    if kind in {"integer", "number"}:
        return schema.get("minimum", 1)
    if kind == "boolean":
        return False
    if kind != "string":
        return None
    if name.endswith(("_hash", "hash")) or "sha256" in schema.get("pattern", ""):
        return HASH
    if schema.get("pattern") == "^[0-9a-f]{64}$":  # the id of a group of differences
        return HASH.removeprefix("sha256:")
    formats = {
        "uuid": ID,
        "date-time": "2026-11-24T12:00:00Z",
        "uri": "https://cloud.example.com/",
        "email": "ada@example.com",
    }
    return formats.get(schema.get("format", ""), "text")


_TEXTS = {
    "/metrics": '# TYPE byteor_agents gauge\nbyteor_agents{liveness="online"} 2.0\n',
    "/graph.svg": '<svg xmlns="http://www.w3.org/2000/svg" class="byteor" role="img"/>\n',
    "/spec.kv": "spec.v=1\nspec.model=single_ring\nspec.name=quotes\n",
}


def add_examples(result: dict[str, Any], generator: object, **kwargs: Any) -> dict[str, Any]:
    """Add an example to every JSON, form, text and SVG body that has none. A postprocessing hook of drf-spectacular."""
    components = result.get("components", {}).get("schemas", {})
    for path, operations in result["paths"].items():
        for operation in operations.values():
            bodies = [operation.get("requestBody", {}), *operation.get("responses", {}).values()]
            for body in bodies:
                for media_type, content in body.get("content", {}).items():
                    if "example" in content or "examples" in content:
                        continue
                    if media_type in {JSON, "multipart/form-data"}:
                        content["example"] = example(content["schema"], components)
                    elif media_type in {"text/plain", "image/svg+xml"}:
                        content["example"] = next(text for end, text in _TEXTS.items() if path.endswith(end))
    return result
