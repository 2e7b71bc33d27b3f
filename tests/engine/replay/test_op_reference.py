"""Tests of the op reference, which must agree with the compiler and with the checks of parameters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from byteor.engine.compiler import Ops, compile_plan
from byteor.engine.replay import check_params, find_reference, reference_of
from byteor.engine.replay.dataguard import OPS as DATAGUARD_OPS
from byteor.engine.replay.dataguard import RULE_PARTS, RULE_TEMPLATES
from byteor.engine.replay.op_reference import OpReference
from tests.worlds import plan

REFERENCES = reference_of(Ops())


def package(**attributes: Any) -> Any:
    """Return an op of a package."""
    return SimpleNamespace(
        **{"__doc__": None, "validate": lambda _: None, "process": lambda payload, _: payload} | attributes
    )


@pytest.mark.parametrize("key", REFERENCES)
def test_built_in_op_has_summary_and_example_that_compiles(key: str) -> None:
    reference = REFERENCES[key]

    compiled = compile_plan(plan(stages=[{"id": "only", "op": reference.example}]))

    assert compiled.ok, compiled.diagnostics
    assert reference.summary.endswith(".")
    assert find_reference(REFERENCES, reference.example) is reference


@pytest.mark.parametrize("op", sorted(DATAGUARD_OPS))
def test_described_parameters_are_those_that_op_accepts(op: str) -> None:
    schema = REFERENCES[op].parameters
    assert schema is not None
    example = schema["examples"][0]

    assert check_params(op, example) == []
    for choice in schema["properties"]["on_reject"]["enum"]:
        assert check_params(op, {**example, "on_reject": choice}) == []
    for name in schema["required"]:
        missing = {key: value for key, value in example.items() if key != name} | {"on_reject": "drop"}
        assert (f"/{name}", "params.required") in [(each.pointer, each.code) for each in check_params(op, missing)]
    unknown = {"schema", "rules", "on_reject", "other"} - set(schema["properties"])
    faults = check_params(op, {**example, **dict.fromkeys(unknown)})
    assert {each.pointer[1:] for each in faults} == unknown


@pytest.mark.parametrize("template", RULE_TEMPLATES.values(), ids=list(RULE_TEMPLATES))
def test_rule_composed_of_example_parts_is_accepted(template: str) -> None:
    rule = template.format(**{name: part["examples"][0] for name, part in RULE_PARTS.items()})

    assert check_params("dataguard_redact", {"rules": [rule]}) == []
    assert check_params("dataguard_redact", {"rules": [rule.partition(":")[2]]}) != []


@pytest.mark.parametrize(
    ("declared", "parameters"),
    [
        ({"type": "object", "properties": {"add": {"type": "string"}}}, ["add"]),
        (None, None),
        (["a"], None),
        ({"type": object()}, None),
    ],
)
def test_summary_is_first_paragraph_of_docstring_and_only_usable_schema_is_shown(
    declared: Any, parameters: list[str] | None
) -> None:
    op = package(__doc__="Appends a\nsuffix.\n\nMore.", parameters=declared)

    reference = reference_of(Ops(stages={"append": op}))["append"]

    assert reference.summary == "Appends a suffix."
    assert (reference.parameters is None) == (parameters is None)
    assert [name for name, _, _ in reference.described_parameters] == (parameters or [])


def nested(levels: int) -> dict[str, Any]:
    """Return a schema in which objects are nested."""
    return {"examples": [nested(levels - 1)]} if levels else {}


@pytest.mark.parametrize(
    "declared",
    [
        nested(600),
        {"properties": {f"p{n}": {"type": "string"} for n in range(10_000)}},
        {"examples": [float("nan")]},
        {"description": "\ud800"},
    ],
    ids=["deep", "large", "nan", "surrogate"],
)
def test_unusable_schema_of_package_is_left_out(declared: Any) -> None:
    reference = reference_of(Ops(stages={"append": package(parameters=declared)}))["append"]

    assert reference.parameters is None


@pytest.mark.parametrize("required", [5, True, "add", {"add": 1}])
def test_malformed_required_list_in_package_schema_is_ignored(required: Any) -> None:
    declared = {"properties": {"add": {"description": "more"}}, "required": required, "examples": "add"}

    reference = reference_of(Ops(stages={"append": package(parameters=declared)}))["append"]

    assert reference.described_parameters == [("add", False, "more")]
    assert reference.example_text == ""


def test_op_without_docstring_and_schema_has_no_summary_and_parameters() -> None:
    reference = reference_of(Ops(stages={"bare": package()}))["bare"]

    assert (reference.example, reference.summary, reference.parameters) == ("bare", "", None)
    assert find_reference({}, "gone:x").key == "gone"


def test_only_identity_among_built_in_ops_takes_no_parameters() -> None:
    assert [key for key, each in REFERENCES.items() if each.takes_no_parameters] == ["identity"]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object", "properties": {}}, True),
        ({"type": "object", "properties": {}, "additionalProperties": False}, True),
        ({"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}, False),
        ({"type": "object", "additionalProperties": {"type": "string"}}, False),
        ({"type": "object", "properties": {}, "anyOf": [{"required": ["a"]}]}, False),
        ({"type": "object", "properties": {"a": {}}}, False),
        (None, False),
    ],
)
def test_op_takes_no_parameters_only_if_schema_declares_empty_object(
    schema: dict[str, Any] | None, expected: bool
) -> None:
    assert OpReference("x", "x", "", schema).takes_no_parameters is expected
