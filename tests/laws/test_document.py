"""The OpenAPI document is complete, valid and reproducible, and contains every operation of the public reference."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openapi_spec_validator
import pytest
from drf_spectacular.renderers import OpenApiJsonRenderer

from byteor_cloud.api.operations import SECURITY_SCHEMES
from tests.laws.calls import operations
from tests.openapi import document, validator
from tests.resources import A, E, O, P

ROOT = Path(__file__).parents[2]
# The operations that the OpenAPI document must at least contain, with full paths and security schemes.
REFERENCE = [
    ("GET", "/readyz", None),
    ("GET", "/healthz", None),
    ("GET", "/metrics", None),
    ("GET", "/auth/login", None),
    ("GET", "/auth/callback", None),
    ("GET", "/api/v1/orgs", "bearer"),
    ("POST", "/api/v1/orgs", "bearer"),
    ("GET", O, "bearer"),
    ("PUT", O, "bearer"),
    ("GET", f"{O}/projects", "bearer"),
    ("POST", f"{O}/projects", "bearer"),
    ("GET", P, "bearer"),
    ("PUT", P, "bearer"),
    ("DELETE", P, "bearer"),
    ("GET", f"{P}/environments", "bearer"),
    ("POST", f"{P}/environments", "bearer"),
    ("GET", E, "bearer"),
    ("PUT", E, "bearer"),
    ("DELETE", E, "bearer"),
    ("GET", f"{E}/drafts", "bearer"),
    ("POST", f"{E}/drafts", "bearer"),
    ("PUT", f"{E}/drafts/{{id}}", "bearer"),
    ("POST", f"{E}/drafts/{{id}}/preview", "bearer"),
    ("POST", f"{E}/drafts/{{id}}/version", "bearer"),
    ("GET", f"{E}/versions", "bearer"),
    ("GET", f"{E}/config-bundles", "bearer"),
    ("POST", f"{E}/config-bundles", "bearer"),
    ("GET", f"{E}/config-bundles/{{id}}", "bearer"),
    ("POST", f"{E}/agents", "enrollmentToken"),
    ("GET", f"{E}/agents", "bearer"),
    ("GET", A, "agentKey"),
    ("POST", f"{A}/heartbeat", "agentKey"),
    ("POST", f"{A}/artifacts", "agentKey"),
    ("POST", f"{A}/deployment", "agentKey"),
    ("GET", f"{A}/signing-key", "agentKey"),
    ("GET", f"{E}/deployments", "bearer"),
    ("POST", f"{E}/deployments", "bearer"),
    ("GET", f"{E}/deployments/{{id}}", "bearer"),
    ("POST", f"{E}/deployments/{{id}}/rollback", "bearer"),
    ("GET", f"{E}/artifacts", "bearer"),
    ("GET", f"{E}/artifacts/{{id}}", "bearer"),
    ("POST", f"{E}/artifacts/{{id}}/replay", "bearer"),
    ("GET", f"{E}/approvals", "bearer"),
    ("POST", f"{E}/approvals", "bearer"),
    ("GET", f"{E}/approvals/{{id}}", "bearer"),
]

# The fields that responses may omit: only some of them apply, or the resource contains what its author sent.
SOMETIMES_ABSENT = {
    "Adapters": {"ingress", "egress"},
    "FreezeWindow": {"recurrence"},
    "Plan": {"description", "labels", "single_ring", "lane_graph"},
    "Problem": {"error", "limit", "used", "replay_id", "more_errors", "errors"},
    "Snapshot": {"interval_s"},
    "Strategy": {"percents", "holds", "pause_s"},
    "Target": {"agents", "selector", "all"},
}


def documented() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the method, path and definition of each operation in the document."""
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


every_documented = pytest.mark.parametrize(
    ("method", "path", "operation"), [pytest.param(*d, id=f"{d[0]} {d[1]}") for d in documented()]
)


def test_public_api_reference_has_45_operations() -> None:
    assert len({(method, path) for method, path, _ in REFERENCE}) == 45


@pytest.mark.parametrize(("method", "path", "scheme"), REFERENCE)
def test_openapi_document_contains_each_operation_of_public_reference(
    method: str, path: str, scheme: str | None
) -> None:
    operation = document()["paths"][path][method.lower()]

    assert operation.get("security", []) == ([{scheme: []}] if scheme else [])


def test_document_contains_exactly_routed_api_operations() -> None:
    api = {(method, path) for method, path, _ in documented() if path.startswith("/api/")}

    assert api == {(o.method, o.path) for o in operations()}


def test_document_is_valid() -> None:
    openapi_spec_validator.validate(document())
    assert document()["openapi"] == "3.1.0"
    assert document()["components"]["securitySchemes"].keys() == SECURITY_SCHEMES.keys()


def schemas_in(node: Any) -> Iterator[str]:
    """Yield the names of the schemas that a part of the document uses, directly or in other schemas."""
    found, new = set[str](), {*re.findall(r"#/components/schemas/(\w+)", json.dumps(node))}
    while new:
        yield from new
        found |= new
        nested = json.dumps([document()["components"]["schemas"][name] for name in new])
        new = {*re.findall(r"#/components/schemas/(\w+)", nested)} - found


def test_fields_that_responses_always_contain_are_required() -> None:
    responses = [operation["responses"] for _, _, operation in documented()]
    optional = {}
    for name in schemas_in([responses, document()["components"]["responses"]]):
        schema = document()["components"]["schemas"][name]
        if absent := schema.get("properties", {}).keys() - set(schema.get("required", ())):
            optional[name] = absent
    settings = optional.pop("DefaultEnvironmentSettings")

    assert optional == SOMETIMES_ABSENT
    assert settings == document()["components"]["schemas"]["EnvironmentSettings"]["properties"].keys()


def test_operation_ids_are_unique() -> None:
    names = [operation["operationId"] for _, _, operation in documented()]

    assert len(names) == len(set(names))


@every_documented
def test_operation_documents_its_purpose_and_errors(method: str, path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"].keys()

    assert 10 <= len(operation["summary"]) <= 120
    assert "\n" not in operation["summary"]
    if not path.startswith("/api/"):
        return
    assert operation["security"]
    assert responses >= {"401", "403", "404", "429", "503"}
    if "requestBody" in operation:
        # A preview saves nothing and takes no Idempotency-Key, so nothing can conflict with it.
        conflicts = set() if operation["operationId"] == "previewDraft" else {"409"}
        assert responses >= {"400", "413", "415"} | conflicts
    assert [code for code in responses if code[0] == "2"]


@every_documented
def test_every_non_binary_body_has_valid_example(method: str, path: str, operation: dict[str, Any]) -> None:
    place = ("paths", path, method.lower())
    bodies: list[tuple[tuple[str, ...], Any]] = [
        ((*place, "responses", code), body) for code, body in operation["responses"].items()
    ]
    if "requestBody" in operation:
        bodies.append(((*place, "requestBody"), operation["requestBody"]))
    seen = 0
    for where, body in bodies:
        if "$ref" in body:
            name = body["$ref"].rsplit("/", 1)[1]
            where, body = ("components", "responses", name), document()["components"]["responses"][name]  # noqa: PLW2901  follows the reference
        for media_type, content in body.get("content", {}).items():
            if content["schema"].get("format") == "binary":
                continue
            validator(*where, "content", media_type, "schema").validate(content["example"])
            seen += 1
    assert seen or path.startswith("/auth/")


def test_openapi_document_does_not_depend_on_hash_seed(tmp_path: Path) -> None:
    """A process with another hash seed, in which sets have another order, generates the same bytes."""
    file = tmp_path / "openapi.json"
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    command = [sys.executable, "manage.py", "spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json"]
    subprocess.run(
        [*command, "--file", str(file)], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
        capture_output=True,
    )  # fmt: skip

    assert file.read_bytes() == OpenApiJsonRenderer().render(document(), renderer_context={})
