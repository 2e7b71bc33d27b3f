"""What views declare of their errors is what the OpenAPI document says; the document's maker knows no view by name."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from byteor_cloud.api import schema
from tests.laws.calls import Operation, operations
from tests.openapi import document

every_operation = pytest.mark.parametrize("operation", operations(), ids=str)
# Only some operations can answer these, so that each is there because a view declares it.
PARTICULAR = {"411", "412", "422", "507"}


def documented(operation: Operation) -> set[str]:
    """The statuses of the errors that the document names for an operation."""
    responses = document()["paths"][operation.path][operation.method.lower()]["responses"]
    return {status for status in responses if status[0] in "45"}


def declarations() -> list[Any]:
    """Each routed view, mixin or base that declares something by action: the class, and what the actions are for."""
    found = {base for operation in operations() for base in operation.view.__mro__}
    made = [(base, name) for base in found for name in ("errors", "verbs", "secret_actions") if vars(base).get(name)]
    return sorted(made, key=lambda each: (each[0].__qualname__, each[1]))


@every_operation
def test_every_declared_error_is_documented(operation: Operation) -> None:
    declared = {str(error.status) for error in operation.view.errors_of(operation.action)}

    assert declared >= {"401", "403", "404", "429", "503"}
    assert declared <= documented(operation)


@every_operation
def test_a_particular_error_is_documented_where_it_is_declared_only(operation: Operation) -> None:
    declared = {str(error.status) for error in operation.view.errors_of(operation.action)}
    reads = operation.method in {"GET", "DELETE"}

    assert documented(operation) & PARTICULAR == declared & PARTICULAR
    assert not reads or ("409" in documented(operation)) is ("409" in declared)


@pytest.mark.parametrize(("view", "name"), declarations())
def test_a_declaration_names_actions_that_are_routed(view: Any, name: str) -> None:
    routed = {operation.action for operation in operations() if issubclass(operation.view, view)}

    assert set(vars(view)[name]) <= routed


def test_the_document_is_made_without_knowing_an_action_by_name() -> None:
    actions = {operation.action for operation in operations()} - {"content"}  # which is a word of OpenAPI, too
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
