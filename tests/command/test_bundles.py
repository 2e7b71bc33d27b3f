"""Tests of ``byteor bundles``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apps.releases.models import ConfigBundle, KnownBad
from apps.releases.services import bundles
from tests.command.conftest import Terminal

pytestmark = pytest.mark.django_db
YAML = """\
# What Europe runs.
name: quotes-eu
tuning_profile: low-latency
stage_config:
  check:
    schema: {type: object, required: [id]}
    on_reject: stop
adapters:
  ingress: {kind: file, path: /in}
env:
  REGION: eu
  PASSWORD: {secret_ref: DB_PASSWORD}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a configuration in YAML, and return its path."""
    (tmp_path / "config.yaml").write_text(YAML)
    return tmp_path / "config.yaml"


def test_config_bundle_is_created_from_file_and_options(terminal: Terminal, world: Any, config: Path) -> None:
    version = world.version()

    created = terminal(
        "bundles", "create", "quotes:1", "-f", str(config), "--var", "REGION=us=1", "--secret", "TOKEN",
        "--tuning-profile", "default",
    )  # fmt: skip

    assert created == (0, "Created config bundle quotes-eu of version quotes:1\n", "")
    bundle = ConfigBundle.objects.get()
    assert (bundle.version, bundle.tuning_profile) == (version, "default")
    assert bundle.env == {
        "REGION": "us=1", "PASSWORD": {"secret_ref": "DB_PASSWORD"}, "TOKEN": {"secret_ref": "TOKEN"},
    }  # fmt: skip
    assert bundle.stage_config == {"check": {"schema": {"type": "object", "required": ["id"]}, "on_reject": "stop"}}

    # ``create`` accepts the configuration that ``show`` prints.
    shown = terminal("bundles", "show", "quotes-eu").out.partition("\n\n")[2]
    again = terminal(
        "bundles", "create", "quotes", "-f", "-", "--name", "same", "--json", "name,config_hash", stdin=shown
    ).json
    assert again == {"name": "same", "config_hash": bundle.config_hash}
    listed = terminal("bundles", "list", "--version", "quotes:1").out.splitlines()
    assert [line.split()[:3] for line in listed[1:]] == [["same", "quotes:1", "no"], ["quotes-eu", "quotes:1", "no"]]


def test_bundle_can_be_created_without_file_and_missing_parameters_cause_warning(
    terminal: Terminal, world: Any
) -> None:
    world.version()

    created = terminal("bundles", "create", "quotes")

    assert created.out == "Created config bundle quotes-1 of version quotes:1\n"
    assert created.err == (
        "/stage_config/check: warning: The stage check (dataguard_check) has no parameters. It lets every record pass "
        "unchanged. (no_parameters)\n"
    )


@pytest.mark.parametrize(
    ("change", "options", "code", "place", "reason"),
    [
        (("check:", "chek:"), (), 1, "{file}:5: error: ", "The version has no such stage."),
        (("REGION:", "region:"), (), 1, "{file}:11: error: ", ""),
        (("low-latency", "fast"), (), 1, "{file}:3: error: ", ""),
        (("adapters:", "adaptors:"), (), 2, "{file}:8: ", "Unknown field: adaptors. Fields: "),
        ((YAML, "- a\n"), (), 2, "{file}:1: ", "A configuration must be a JSON object or a YAML mapping."),
        (("", ""), ("--var", "region=eu"), 1, "/env/region: error: ", ""),
        (("", ""), ("--var", "REGION"), 2, "byteor: --var REGION: ", "Write NAME=VALUE."),
    ],
)  # fmt: skip
def test_error_states_where_configuration_is_invalid(
    terminal: Terminal, world: Any, config: Path, change: Any, options: Any, code: int, place: str, reason: str
) -> None:
    world.version()
    config.write_text(YAML.replace(*change))

    found = terminal("bundles", "create", "quotes", "-f", str(config), *options)

    assert (found.code, found.out) == (code, "")
    assert place.format(file=config) in found.err
    assert reason in found.err
    assert not ConfigBundle.objects.exists()


def test_copying_bundle_lists_secrets_that_are_new_in_target_environment(
    terminal: Terminal, world: Any, config: Path
) -> None:
    world.version()
    terminal("bundles", "create", "quotes", "-f", str(config))

    copied = terminal("bundles", "copy", "quotes-eu", "--to", "prod")

    assert copied.out == "Copied config bundle quotes-eu to prod\n"
    assert "No other config bundle in prod uses this secret: DB_PASSWORD." in copied.err
    assert terminal("bundles", "copy", "quotes-eu", "--to", "prod").out == "Unchanged: prod already has quotes-eu\n"
    assert ConfigBundle.objects.get(environment=world.prod).env == ConfigBundle.objects.get(environment=world.dev).env


def test_clearing_known_bad_configuration_requires_reason_and_permission(terminal: Terminal, world: Any) -> None:
    bundle = world.bundle(name="quotes-eu")
    bundles.mark_known_bad(world.dev, bundle.config_hash, reason="rolled back", actor=world.operator.actor)

    assert terminal("bundles", "clear", "quotes-eu").code == 2
    terminal.use(world.viewer.api.token, organization="acme", project=world.project.name, environment="dev")
    refused = terminal("bundles", "clear", "quotes-eu", "--reason", "fixed")
    assert (refused.code, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert KnownBad.objects.exists()

    terminal.use(world.operator.api.token, organization="acme", project=world.project.name, environment="dev")
    cleared = terminal("bundles", "clear", str(bundle.pk)[-8:], "--reason", "The disk was full")
    assert cleared == (0, "Config bundle quotes-eu can be deployed again\n", "")
    assert not KnownBad.objects.exists()
    assert "This configuration is not known bad." in terminal("bundles", "clear", "quotes-eu", "--reason", "x").err
