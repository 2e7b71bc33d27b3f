"""Every operation that reads a JSON body refuses invalid bodies with a clear problem and changes nothing.

Other tests concern unsupported methods, unknown paths and the Accept header.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.laws.calls import Operation, body_of, operations, path_of, permitted_caller, send
from tests.laws.tenants import Tenants, writes
from tests.openapi import PROBLEM
from tests.worlds import Api

pytestmark = pytest.mark.django_db


def reads_json(operation: Operation) -> bool:
    """Return whether the operation has a JSON body in the OpenAPI document."""
    return "application/json" in operation.documented.get("requestBody", {}).get("content", {})


WITH_BODY = [o for o in operations() if reads_json(o)]
every_operation_with_body = pytest.mark.parametrize("operation", WITH_BODY, ids=str)
DEEP = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
# Name, body, status, the problem's code, and the pointer and code of the field error (None: not checked).
BAD: list[tuple[str, bytes, int, str, tuple[str, str] | None]] = [
    ("truncated", b'{"name": "que', 400, "malformed_json", None),
    ("empty text", b" ", 400, "malformed_json", None),
    ("not UTF-8", b'{"name": "\xff"}', 400, "malformed_json", None),
    ("NaN", b'{"name": NaN}', 400, "malformed_json", None),
    ("infinity", b'{"name": -Infinity}', 400, "malformed_json", None),
    ("1e999", b'{"name": 1e999}', 400, "malformed_json", None),
    ("a number of 5,000 digits", b'{"name": ' + b"9" * 5000 + b"}", 400, "malformed_json", None),
    ("a duplicate key", b'{"name": "a", "name": "b"}', 400, "malformed_json", None),
    ("a duplicate key deep inside", b'{"name": [{"a": 1, "a": 1}]}', 400, "malformed_json", None),
    ("deep nesting", DEEP, 400, "invalid", ("/a" * 100, "too_deep")),
    ("nesting just too deep", b'{"a":' * 201 + b"1" + b"}" * 201, 400, "invalid", ("/a" * 100, "too_deep")),
    ("a NUL", b'{"name": "a\\u0000b"}', 400, "invalid", ("/name", "character")),
    ("a NUL in a key", b'{"na\\u0000me": 1}', 400, "invalid", ("", "character")),
    ("a lone surrogate", b'{"name": "\\ud800"}', 400, "invalid", ("/name", "character")),
    ("a list", b"[]", 400, "invalid", ("", "invalid")),
    ("a text", b'"text"', 400, "invalid", ("", "invalid")),
    ("null", b"null", 400, "invalid", None),
    ("5 MiB", b'{"name": "' + b"a" * (5 << 20) + b'"}', 413, "payload_too_large", None),
]


def assert_refused(response: Any, status: int, code: str, before: str) -> None:
    """Assert that the response is a problem with this code and that nothing was written."""
    assert (response.status_code, response.json()["type"]) == (status, f"urn:byteor:problem:{code}")
    assert response["Content-Type"] == PROBLEM
    assert writes() == before


def test_exactly_writing_operations_with_body_document_request_body() -> None:
    writing = {o for o in operations() if o.method in {"POST", "PUT", "PATCH"} and o.call.has_body}

    assert {o for o in operations() if "requestBody" in o.documented} == writing


@every_operation_with_body
@pytest.mark.parametrize(("body", "status", "code", "error"), [pytest.param(*b[1:], id=b[0]) for b in BAD])
def test_invalid_body_is_refused(
    operation: Operation, body: bytes, status: int, code: str, error: tuple[str, str] | None, tenants: Tenants
) -> None:
    caller, path = permitted_caller(operation, tenants), path_of(operation, tenants, tenants.home.ids())
    before = writes()

    response = caller(operation.method, path, body)

    assert_refused(response, status, code, before)
    if error is not None:
        found = [(e["pointer"], e["code"]) for e in response.json()["errors"]]
        assert found in ([error], [(error[0], "not_a_dict")])


@every_operation_with_body
def test_unknown_field_is_named_in_error(operation: Operation, tenants: Tenants) -> None:
    body = {**body_of(operation, tenants), "surprise/~": 1}
    caller, path = permitted_caller(operation, tenants), path_of(operation, tenants, tenants.home.ids())
    before = writes()

    response = caller(operation.method, path, body)

    assert_refused(response, 400, "invalid", before)
    errors = response.json()["errors"]
    assert [(e["pointer"], e["code"]) for e in errors] == [("/surprise~1~0", "unknown_field")]


@every_operation_with_body
@pytest.mark.parametrize("value", [[], {}, 5, True, None, "", "\t", 1e308, -1], ids=repr)
def test_field_of_wrong_type_returns_400(operation: Operation, value: Any, tenants: Tenants) -> None:
    caller, path = permitted_caller(operation, tenants), path_of(operation, tenants, tenants.home.ids())
    body, before = body_of(operation, tenants), writes()
    for name, was in body.items():
        if isinstance(value, type(was)) or (value is None and name in {"active", "project_id"}):
            continue

        response = caller(operation.method, path, {**body, name: value})

        assert_refused(response, 400, "invalid", before)
        pointers = [e["pointer"] for e in response.json()["errors"]]
        assert pointers
        assert all(pointer == f"/{name}" or pointer.startswith(f"/{name}/") for pointer in pointers)


@every_operation_with_body
@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded"])
def test_unsupported_media_type_is_refused(operation: Operation, content_type: str, tenants: Tenants) -> None:
    caller, path = permitted_caller(operation, tenants), path_of(operation, tenants, tenants.home.ids())
    before = writes()

    response = caller(operation.method, path, b"name=quotes", Content_Type=content_type)

    assert_refused(response, 415, "unsupported_media_type", before)


@pytest.mark.parametrize("path", sorted({o.path for o in operations()}))
def test_unsupported_method_is_refused(path: str, tenants: Tenants) -> None:
    served = {o.method for o in operations() if o.path == path}
    url = tenants.fill(path, tenants.home.ids())
    before = writes()
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} - served:
        response = tenants.home.admin.api(method, url)

        assert_refused(response, 405, "method_not_allowed", before)
        assert {m.strip() for m in response["Allow"].split(",")} - {"HEAD"} == served


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/orgs/5", "/api/v1/orgs/", "/api/v1/agents/x/heartbeat"])
def test_unknown_path_returns_problem(path: str, tenants: Tenants) -> None:
    before = writes()

    response = tenants.home.admin.api.get(path, Accept="text/html")

    assert_refused(response, 404, "not_found", before)


def test_body_of_maximum_size_is_read(tenants: Tenants, settings: Any) -> None:
    operation = next(o for o in WITH_BODY if (o.method, o.path) == ("POST", "/api/v1/orgs"))
    cap = settings.CONFIG.max_body_bytes
    head = b'{"name": "quotes", "pad": "'
    body = head + b"a" * (cap - len(head) - 2) + b'"}'

    # A body of exactly the limit is read and refused for its content; one more byte is too large.
    assert len(body) == cap == 4 << 20
    assert tenants.home.admin.api("POST", operation.path, body).status_code == 400
    assert tenants.home.admin.api("POST", operation.path, body + b" ").status_code == 413


def test_unsupported_accept_header_is_ignored(tenants: Tenants) -> None:
    for operation in operations():
        if operation.method == "GET":
            response = send(operation, tenants, permitted_caller(operation, tenants), Accept="image/png")
            assert (response.status_code, bool(response.getvalue())) == (200, True)


def test_unauthenticated_request_for_html_receives_problem_json(tenants: Tenants) -> None:
    for operation in operations():
        assert send(operation, tenants, Api(None), Accept="text/html")["Content-Type"] == PROBLEM
