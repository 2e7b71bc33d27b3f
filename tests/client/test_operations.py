"""Tests that call every operation under /api/v1 with the blocking and the asynchronous client."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from byteor.client import AsyncByteOr, ByteOr
from byteor.client.async_runtime import AsyncDownload, AsyncPages
from byteor.client.model import Model
from byteor.client.runtime import Download, Pages
from tests.client.live import served
from tests.laws.calls import Operation, example, ids_for, operations, permitted_caller
from tests.laws.conftest import tenants as tenants  # noqa: PLC0414  a fixture
from tests.laws.tenants import Tenants
from tests.openapi import document

pytestmark = pytest.mark.django_db
LEVELS = {"org_id": "organization", "project_id": "project", "env_id": "environment"}


@pytest.fixture
def url(tenants: Tenants) -> Iterator[str]:
    """Serve the API, and yield its URL. Then restore the registry of created rows, because new rows are rolled back."""
    place = tenants.home.place
    made = dict(place._made)
    with served() as url:
        yield url
    place._made = made


def method_of(client: Any, operation: Operation, ids: dict[str, Any]) -> Any:
    """Return the client's method for the operation, bound to the rows in ``ids``, and the remaining ids in the path."""
    path = re.sub(r"([a-z-]+)/\{id\}", r"\1/{\1}", operation.path)
    names = re.findall(r"\{([a-z_-]+)\}", path)
    if operation.path.startswith("/api/v1/agents/{id}"):
        level, taken = client.own_agent(str(ids["agents"])), 1
    else:
        taken = len([name for name in names if name in LEVELS])
        level = getattr(client, LEVELS[names[taken - 1]])(*(str(ids[n]) for n in names[:taken])) if taken else client
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", operation.id).lower()
    return getattr(level, name), [str(ids[each]) for each in names[taken:]]


def arguments_of(operation: Operation, tenants: Tenants, method: Any) -> dict[str, Any]:
    """Return the example's body and the query as keyword arguments."""
    values = dict(example(operation, tenants) or {})
    values |= {k: v[0] for k, v in parse_qs(operation.call.query(tenants.home.place).lstrip("?")).items()}
    named = {
        f"{name}_" if f"{name}_" in inspect.signature(method).parameters else name: v for name, v in values.items()
    }
    if "file" in named:
        named["file"] = named["file"].encode()
    return named


def token_for(operation: Operation, tenants: Tenants) -> str | None:
    """Return the token of a caller for whom the example succeeds. Some fields in examples need further permissions."""
    has_example = "requestBody" in operation.documented and operation.call.on is None
    return (tenants.caller(operation.families[0]) if has_example else permitted_caller(operation, tenants)).token


def models_of(operation: Operation) -> set[str]:
    """Return the names of the schemas of successful responses in JSON."""
    responses = [each for status, each in operation.documented["responses"].items() if status.startswith("2")]
    schemas = [
        each["content"]["application/json"]["schema"]
        for each in responses
        if "application/json" in each.get("content", {})
    ]
    return {str(each["$ref"]).rpartition("/")[2] for each in schemas if "$ref" in each}


def check(operation: Operation, found: Any) -> None:
    """Assert that the result has the type that the document names, if it names one."""
    if models := models_of(operation):
        assert isinstance(found, Model)
        assert type(found).__name__ in models


@pytest.mark.parametrize("operation", operations(), ids=str)
def test_client_calls_operation(operation: Operation, tenants: Tenants, url: str) -> None:
    ids = ids_for(operation, tenants)

    with ByteOr(url, token_for(operation, tenants)) as client:
        method, given = method_of(client, operation, ids)
        found = method(*given, **arguments_of(operation, tenants, method))
        if isinstance(found, Pages):
            found = next(found.pages())
            assert isinstance(found.results, list)
        check(operation, found.read() if isinstance(found, Download) else found)


@pytest.mark.parametrize("operation", operations(), ids=str)
def test_asynchronous_client_calls_operation(operation: Operation, tenants: Tenants, url: str) -> None:
    ids = ids_for(operation, tenants)
    client = AsyncByteOr(url, token_for(operation, tenants))
    method, given = method_of(client, operation, ids)
    arguments = arguments_of(operation, tenants, method)

    async def call() -> Any:
        async with client:
            found = method(*given, **arguments)
            if isinstance(found, AsyncPages):
                return await anext(found.pages())
            return await (found.read() if isinstance(found, AsyncDownload) else found)

    check(operation, asyncio.run(call()))


def test_client_has_method_for_every_operation_of_document() -> None:
    documented = {
        operation["operationId"]
        for path in document()["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    }
    methods = {name for level in ByteOr.__mro__ for name in vars(level)}
    methods |= {
        name
        for level in ("organization", "project", "environment", "own_agent")
        for name in dir(inspect.signature(getattr(ByteOr, level), eval_str=True).return_annotation)
    }

    assert {re.sub(r"(?<!^)(?=[A-Z])", "_", each).lower() for each in documented} <= methods
