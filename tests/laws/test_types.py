"""Values that modules exchange have specific types: the names in ``TYPED`` are never untyped mappings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Generated from the OpenAPI document, in which the target and the strategy of an approval may be any object.
WRITTEN = ROOT / "byteor/client/models.py"
# Names of the parameters, attributes and columns whose values have specific types.
TYPED = frozenset({"strategy", "target", "break_glass", "policy", "enlisting", "effective_settings", "freeze_windows"})
VAGUE = frozenset({"Any", "object", "dict", "Mapping", "MutableMapping", "JSONField", "Json"})


def _annotated(tree: ast.AST) -> Iterator[tuple[int, str, ast.expr | None]]:
    """Yield the line, name and annotation of each parameter, function and annotated variable or attribute.

    If a variable without an annotation is assigned the result of a call, yield the called function instead.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.lineno, node.arg, node.annotation
        elif isinstance(node, ast.AnnAssign):
            name = node.target.attr if isinstance(node.target, ast.Attribute) else getattr(node.target, "id", "")
            yield node.lineno, name, node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name, node.returns
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            # A column without an annotation has the type of the called field class.
            for each in node.targets:
                yield node.lineno, getattr(each, "id", ""), node.value.func


def untyped(source: str) -> list[tuple[int, str]]:
    """Return the line and name of each annotation of a name in ``TYPED`` that contains a type in ``VAGUE``."""
    found = []
    for line, name, annotation in _annotated(ast.parse(source)):
        if name not in TYPED or annotation is None:
            continue
        names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(annotation) if isinstance(node, ast.Attribute)}
        if names & VAGUE:
            found.append((line, name))
    return found


@pytest.mark.parametrize("package", ["byteor", "byteor_cloud", "apps"])
def test_names_that_need_specific_types_have_no_vague_annotations(package: str) -> None:
    files = [path for path in (ROOT / package).rglob("*.py") if path.parent.name != "migrations" and path != WRITTEN]

    assert len(files) > 50
    assert {str(path.relative_to(ROOT)): found for path in files if (found := untyped(path.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "def f(strategy: Mapping[str, Any]) -> None: ...",
        "def f(*, target: dict[str, object] | None = None) -> None: ...",
        "async def break_glass(self) -> Any: ...",
        "class Row:\n    target: models.JSONField[Any, Any] = models.JSONField()",
        "class Row:\n    strategy = models.JSONField(default=dict)",
        "self.target: Json = {}",
        "target: collections.abc.Mapping[str, str] = {}",
    ],
)
def test_vague_annotation_of_name_that_needs_specific_type_is_found(source: str) -> None:
    assert len(untyped(source)) == 1


@pytest.mark.parametrize(
    "source", ["def f(strategy: Strategy, *, other: dict[str, Any]) -> None: ...", "target: StoredField[Target]"]
)
def test_annotation_with_specific_type_is_not_reported(source: str) -> None:
    assert untyped(source) == []
