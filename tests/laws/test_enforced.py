"""The server checks parameters and bodies against the schemas in the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.laws import values
from tests.laws.calls import Operation, body_of, operations, path_of, permitted_caller, send
from tests.laws.tenants import Tenants, writes
from tests.openapi import document
from tests.resources.own_agent import BOUNDARY, multipart
from tests.resources.versions import INCIDENT

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).parents[2]
FORM = "multipart/form-data"
# Error codes for values that do not match their schema. Services use other codes to refuse values that match it.
SCHEMA_CODES = {
    "required", "null", "blank", "invalid_choice", "min_value", "max_value", "max_length", "min_length", "pattern",
    "unknown_field", "unknown_parameter", "not_a_dict", "not_a_list", "empty",
}  # fmt: skip
every_operation = pytest.mark.parametrize("operation", operations(), ids=str)


@pytest.fixture(autouse=True)
def _no_limits(settings: Any) -> None:
    """Disable the rate limits, since these tests send many refused requests."""
    settings.CONFIG = replace(settings.CONFIG, rate_limit=False)


def parameters(operation: Operation, place: str) -> Iterator[dict[str, Any]]:
    """Yield the operation's parameters in ``place``: query, path or header."""
    for parameter in operation.documented.get("parameters", []):
        if "$ref" in parameter:
            parameter = document()["components"]["parameters"][parameter["$ref"].rsplit("/", 1)[1]]  # noqa: PLW2901  follows the reference
        if parameter["in"] == place:
            yield parameter


def schema_of(operation: Operation, media_type: str) -> dict[str, Any] | None:
    """Return the schema of the operation's body, or None if it accepts no body of this media type."""
    content = operation.documented.get("requestBody", {}).get("content", {})
    return content[media_type]["schema"] if media_type in content else None


def bare(operation: Operation, tenants: Tenants) -> str:
    """Return the path for rows of ``home``, without a query."""
    return tenants.fill(operation.path, tenants.home.ids())


def refused_at(response: Any, key: str, place: str) -> bool:
    """Return whether the response is a 400 whose error names ``place`` or a part of it."""
    if response.status_code != 400:
        return False
    places = [error.get(key) for error in response.json().get("errors", [])]
    return any(found == place or str(found).startswith(f"{place}/") for found in places)


class Written:
    """Detects whether rows were written since the last check."""

    def __init__(self) -> None:
        self._before = writes()

    def changed(self) -> bool:
        """Return whether rows were written since the last check."""
        before, self._before = self._before, writes()
        return self._before != before


WITH_QUERY = [(o, p["name"]) for o in operations() for p in parameters(o, "query")]


@pytest.mark.parametrize("operation", [o for o in operations() if any(parameters(o, "query"))], ids=str)
def test_query_parameter_schemas_are_enforced(operation: Operation, tenants: Tenants) -> None:
    caller = permitted_caller(operation, tenants)
    texts: dict[tuple[str, bool], list[str]] = {}
    for parameter in parameters(operation, "query"):
        name, schema = parameter["name"], parameter["schema"]
        for text in values.texts(schema):
            texts.setdefault((name, values.is_valid_text(schema, text)), []).append(text)
        # Even text filters have invalid values: texts with characters that no name can contain.
        assert texts[name, True], name
        assert texts[name, False], name

    written = Written()

    def find_wrong(query: dict[str, str], *, is_allowed: bool) -> list[Any]:
        """Send the query. Returns the parameters that the server does not treat as documented."""
        response = caller(operation.method, f"{bare(operation, tenants)}?{urlencode(query)}")
        if not is_allowed:
            was_changed = written.changed()
            refused = {name for name in query if refused_at(response, "parameter", name)}
            return [
                ("accepted", name, query, response.getvalue()) for name in query if was_changed or name not in refused
            ]
        errors = response.json().get("errors", []) if response.status_code == 400 else []
        return [
            ("refused", name, query, response.getvalue())
            for name in query
            if [e["code"] for e in errors if e.get("parameter") == name] not in ([], ["max_value"], ["unknown_cursor"])
        ]

    wrong: list[Any] = []
    for is_allowed in (False, True):
        columns = {name: found for (name, allowed), found in texts.items() if allowed == is_allowed}
        for number in range(max(map(len, columns.values()))):
            query = {name: found[number] for name, found in columns.items() if number < len(found)}
            if find_wrong(query, is_allowed=is_allowed):  # one error may have hidden others, so send each separately
                for name, text in query.items():
                    wrong += find_wrong({name: text}, is_allowed=is_allowed)
    assert wrong == []


@pytest.mark.parametrize(("operation", "name"), WITH_QUERY, ids=[f"{o} {name}" for o, name in WITH_QUERY])
def test_query_parameter_repeated_too_often_is_refused(operation: Operation, name: str, tenants: Tenants) -> None:
    [parameter] = [p for p in parameters(operation, "query") if p["name"] == name]
    times = parameter["schema"].get("maxItems", 1) + 1

    response = permitted_caller(operation, tenants)(
        operation.method, f"{bare(operation, tenants)}?{'&'.join([f'{name}=1'] * times)}"
    )

    assert refused_at(response, "parameter", name)


def test_missing_required_parameter_is_refused(tenants: Tenants) -> None:
    required = [(o, p["name"]) for o in operations() for p in parameters(o, "query") if p.get("required")]
    assert required
    for operation, name in required:
        response = permitted_caller(operation, tenants)(operation.method, bare(operation, tenants))

        assert [(e["parameter"], e["code"]) for e in response.json()["errors"]] == [(name, "required")]


@every_operation
def test_unknown_parameter_is_refused(operation: Operation, tenants: Tenants) -> None:
    path = path_of(operation, tenants, tenants.home.ids())
    headers = {"Content_Type": f"{FORM}; boundary={BOUNDARY}"} if schema_of(operation, FORM) else {}
    before = writes()

    response = permitted_caller(operation, tenants)(
        operation.method,
        f"{path}{'&' if '?' in path else '?'}surprise=1",
        body_of(operation, tenants),
        **headers,
    )

    assert response.status_code == 400
    assert [(e["parameter"], e["code"]) for e in response.json()["errors"]] == [("surprise", "unknown_parameter")]
    assert writes() == before


@every_operation
def test_exactly_declared_query_parameters_are_documented(operation: Operation) -> None:
    declared = operation.view.query_parameters(operation.action)

    assert {p["name"] for p in parameters(operation, "query")} == set(declared)


def test_only_three_shared_modules_read_raw_query_parameters() -> None:
    files = [*(ROOT / "apps").glob("*/api/**/*.py"), *(ROOT / "byteor_cloud/api").rglob("*.py")]
    assert ROOT / "apps/releases/api/views/deployments.py" in files
    reading = {file.name for file in files if re.search(r"query_params|\.GET\b", file.read_text())}

    # The base class of all views reads only declared parameters. Pagination reads the cursor, and the document's
    # route reads the format.
    assert reading == {"view_sets.py", "pagination.py", "document.py"}


@pytest.mark.parametrize("key", ["", "k" * 256, "\xe9"])
def test_invalid_idempotency_key_is_refused(key: str, tenants: Tenants) -> None:
    taking = [o for o in operations() if any(p["name"] == "Idempotency-Key" for p in parameters(o, "header"))]
    assert taking
    before = writes()
    for operation in taking:
        response = send(operation, tenants, permitted_caller(operation, tenants), Idempotency_Key=key)

        assert refused_at(response, "parameter", "Idempotency-Key"), operation
        assert writes() == before


WITH_JSON = [o for o in operations() if schema_of(o, "application/json")]


@pytest.mark.parametrize("operation", WITH_JSON, ids=str)
def test_body_schema_is_enforced(operation: Operation, tenants: Tenants) -> None:
    schema = schema_of(operation, "application/json")
    assert schema is not None
    caller, path = permitted_caller(operation, tenants), path_of(operation, tenants, tenants.home.ids())
    base = body_of(operation, tenants)
    written = Written()

    def find_wrong(body: Any, variants: list[values.Variant]) -> list[Any]:
        """Send the body. Returns the variants that the server does not treat as documented."""
        # An empty body is valid if no field is required; ``null`` is not.
        response = caller(operation.method, path, b"null" if body is None else body)
        if not variants[0].is_allowed:
            was_changed = written.changed()
            return [
                ("accepted", variant, response.status_code, response.getvalue()[:300])
                for variant in variants
                if was_changed or not refused_at(response, "pointer", variant.pointer)
            ]
        if response.status_code != 400:
            return []
        errors = response.json().get("errors", [])
        return [
            ("refused", variant, error)
            for variant in variants
            for error in errors or [None]
            if error is None or (error.get("pointer") == variant.pointer and error["code"] in SCHEMA_CODES)
        ]

    wrong: list[Any] = []
    # Send the invalid bodies first. None of them may write anything.
    for is_allowed, start in ((False, values.filled(schema, base)), (True, base)):
        variants = [variant for variant in values.around(schema, start) if variant.is_allowed is is_allowed]
        assert variants
        for body, group in values.batches(start, variants):
            if find_wrong(body, group):  # one error may have hidden others, so send each separately
                for variant in group:
                    wrong += [found for found in find_wrong(variant.body, [variant]) if found[-1] is not None]
    assert wrong == []


@pytest.mark.parametrize("operation", [o for o in operations() if schema_of(o, FORM)], ids=str)
def test_form_with_unknown_missing_or_invalid_field_is_refused(operation: Operation, tenants: Tenants) -> None:
    schema = schema_of(operation, FORM)
    assert schema is not None
    flat = values.resolved(schema)
    good = {"kind": "telemetry", "captured_at": "2026-11-24T12:00:00Z"}
    caller, path = permitted_caller(operation, tenants), bare(operation, tenants)

    def post(fields: dict[str, str]) -> Any:
        return caller("POST", path, multipart(INCIDENT, **fields), Content_Type=f"{FORM}; boundary={BOUNDARY}")

    assert refused_at(post({**good, "surprise": "1"}), "pointer", "/surprise")
    for name in set(flat["required"]) - {"file"}:
        assert refused_at(post({key: text for key, text in good.items() if key != name}), "pointer", f"/{name}")
    for name, child in flat["properties"].items():
        if values.resolved(child).get("type") != "string" or child.get("format") == "binary":
            continue
        for text in values.texts(child):
            if "\n" not in text and not values.is_valid(child, text):
                before = writes()
                response = post({**good, name: text})
                assert refused_at(response, "pointer", f"/{name}"), (name, text, response.getvalue())
                assert writes() == before
