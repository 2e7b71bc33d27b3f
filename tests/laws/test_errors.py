"""The OpenAPI document lists the errors that the views declare, and its generator names no action of a view."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from byteor_cloud.api import schema
from tests.laws.calls import Operation, operations
from tests.openapi import document

every_operation = pytest.mark.parametrize("operation", operations(), ids=str)
# Only some operations return these statuses, so their views must declare them.
SPECIFIC = {"411", "412", "422", "507"}


def documented(operation: Operation) -> set[str]:
    """Return the error statuses that the document lists for an operation."""
    responses = document()["paths"][operation.path][operation.method.lower()]["responses"]
    return {status for status in responses if status[0] in "45"}


def declarations() -> list[Any]:
    """Return the class and name of each attribute that declares errors by action, in routed views and their bases."""
    found = {base for operation in operations() for base in operation.view.__mro__}
    made = [(base, name) for base in found for name in ("operations", "mixin_errors") if vars(base).get(name)]
    return sorted(made, key=lambda each: (each[0].__qualname__, each[1]))


@every_operation
def test_every_declared_error_is_documented(operation: Operation) -> None:
    declared = {str(error.status) for error in operation.view.errors_of(operation.action)}

    assert declared >= {"401", "403", "404", "429", "503"}
    assert declared <= documented(operation)


@every_operation
def test_specific_errors_are_documented_exactly_where_declared(operation: Operation) -> None:
    declared = {str(error.status) for error in operation.view.errors_of(operation.action)}
    reads = operation.method in {"GET", "DELETE"}

    assert documented(operation) & SPECIFIC == declared & SPECIFIC
    assert not reads or ("409" in documented(operation)) is ("409" in declared)


@pytest.mark.parametrize(("view", "name"), declarations())
def test_errors_are_declared_only_for_routed_actions(view: Any, name: str) -> None:
    routed = {operation.action for operation in operations() if issubclass(operation.view, view)}

    assert set(vars(view)[name]) <= routed


def test_document_generator_contains_no_action_names() -> None:
    # ``content`` is also an OpenAPI keyword, and ``journal`` a part of a path.
    actions = {operation.action for operation in operations()} - {"content", "journal"}
    (folder,) = schema.__path__
    files = sorted(Path(folder).glob("*.py"))
    texts = {
        (file.name, node.value)
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }

    assert len(files) > 1
    assert len(actions) > 20
    assert [(name, text) for name, text in sorted(texts) if text in actions] == []
