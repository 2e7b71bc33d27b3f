"""Tests of the difference between two runtime configurations."""

from __future__ import annotations

from typing import Any

import pytest

from byteor.engine.configuration import ConfigChange, RuntimeConfig, diff_configurations

OLD: dict[str, Any] = {
    "tuning_profile": "default",
    "wait": "backoff",
    "stage_config": {"check": {"schema": {"required": ["symbol"]}, "on_reject": "drop"}},
    "adapters": {},
    "env": {"REGION": "eu", "TOKEN": {"secret_ref": "TOKEN_EU"}},
    "snapshot": {"enabled": False},
}


def with_fields(**fields: Any) -> RuntimeConfig:
    """Return ``OLD`` with these fields replaced."""
    return RuntimeConfig(**{**OLD, **fields})


def changes_with(**fields: Any) -> list[tuple[str, str, str, str | None, str | None]]:
    """Return the changes from ``OLD`` to a configuration with these fields."""
    return [
        (each.change, each.what, each.name, each.old, each.new)
        for each in diff_configurations(with_fields(), with_fields(**fields))
    ]


def test_equal_configurations_have_no_changes() -> None:
    assert diff_configurations(with_fields(), with_fields(env=dict(reversed(OLD["env"].items())))) == ()


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        ({"wait": "spin"}, ("changed", "wait", "", '"backoff"', '"spin"')),
        ({"snapshot": {"enabled": True}}, ("changed", "snapshot", "enabled", "false", "true")),
        ({"env": {"TOKEN": OLD["env"]["TOKEN"]}}, ("removed", "env", "REGION", '"eu"', None)),
        ({"env": {**OLD["env"], "N": "1"}}, ("added", "env", "N", None, '"1"')),
        ({"env": {**OLD["env"], "REGION": "é"}}, ("changed", "env", "REGION", '"eu"', '"é"')),
        # A reference to a secret differs from an equal-looking string.
        (
            {"env": {**OLD["env"], "TOKEN": "secret_ref TOKEN_EU"}},
            ("changed", "env", "TOKEN", "secret_ref TOKEN_EU", '"secret_ref TOKEN_EU"'),
        ),
        (
            {"env": {**OLD["env"], "TOKEN": {"secret_ref": "TOKEN_US"}}},
            ("changed", "env", "TOKEN", "secret_ref TOKEN_EU", "secret_ref TOKEN_US"),
        ),
        # A list is compared as one value.
        (
            {"stage_config": {"check": {"schema": {"required": ["symbol", "price"]}, "on_reject": "drop"}}},
            ("changed", "stage_config", "check/schema/required", '["symbol"]', '["symbol", "price"]'),
        ),
        ({"adapters": {"ingress": {}}}, ("added", "adapters", "ingress", None, "{}")),
        ({"adapters": {"a/b": {"c~": None}}}, ("added", "adapters", "a~1b/c~0", None, "null")),
    ],
)
def test_single_difference_gives_one_change(fields: dict[str, Any], change: tuple[Any, ...]) -> None:
    assert changes_with(**fields) == [change]


def test_changes_are_sorted_by_field_and_path() -> None:
    found = changes_with(wait="spin", env={"B": "2", "A": "1"})

    assert [(what, name) for _, what, name, _, _ in found] == [
        ("env", "A"), ("env", "B"), ("env", "REGION"), ("env", "TOKEN"), ("wait", ""),
    ]  # fmt: skip


def test_values_of_first_configuration_are_reported_as_added() -> None:
    found = diff_configurations(None, with_fields(stage_config={}))

    assert found == (
        ConfigChange("added", "env", "REGION", None, '"eu"'),
        ConfigChange("added", "env", "TOKEN", None, "secret_ref TOKEN_EU"),
        ConfigChange("added", "snapshot", "enabled", None, "false"),
        ConfigChange("added", "tuning_profile", "", None, '"default"'),
        ConfigChange("added", "wait", "", None, '"backoff"'),
    )


def test_deeply_nested_configuration_is_compared() -> None:
    deep: Any = "end"
    for _ in range(900):
        deep = {"a": deep}

    (change,) = diff_configurations(with_fields(), with_fields(adapters=deep))

    assert change.name == "/".join(["a"] * 900)
    assert change.new == '"end"'
