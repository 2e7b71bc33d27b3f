"""Regressions: fixtures, replayed through a candidate and through what runs now."""

from __future__ import annotations

from typing import Any

import pytest

from apps.artifacts.models import Artifact, Fixture, RegressionResult, Verdict
from apps.artifacts.services import fixtures, regressions
from apps.pipelines.models import Version
from apps.releases.models import ConfigBundle, Regression
from tests.artifacts.incidents import incident, ingested, journal
from tests.worlds import World, plan, run_jobs

pytestmark = pytest.mark.django_db

RECORDS = [
    b'{"id":1,"card":"1234567890"}',
    b'{"id":2,"card":"1111222233"}',
    b'{"no":"id"}',
    b'{"id":4,"card":"0987654321"}',
]
STAGES = [{"id": "check", "op": "dataguard_check"}, {"id": "redact", "op": "dataguard_redact", "depends_on": ["check"]}]
CHECK = {"schema": {"type": "object"}}
REDACT = {"rules": ["card:mask=2:2:*"]}


def bundle(world: World, name: str, check: Any = CHECK, redact: Any = REDACT) -> ConfigBundle:
    version = Version.objects.filter(environment=world.dev).first() or world.version(content=plan(stages=STAGES))
    return world.bundle(name=name, version=version, stage_config={"check": check, "redact": redact})


def capture(world: World, made: ConfigBundle, records: list[bytes] = RECORDS) -> Artifact:
    config = dict(made.stage_config)
    return ingested(world, incident(made.version.spec_kv, stage_config=config, quotes_in=journal(records)))


def kept(world: World, artifact: Artifact, name: str = "cards", **options: Any) -> Fixture:
    return fixtures.create(artifact, environment=world.dev, name=name, actor=world.operator.actor, **options)


def run_regression(world: World, candidate: ConfigBundle, *against: ConfigBundle) -> Regression:
    row = regressions.request(
        environment=world.dev,
        config_bundle=candidate,
        against=[each.config_hash for each in against],
        actor=world.operator.actor,
    )
    run_jobs()
    row.refresh_from_db()
    return row


def test_changed_output_and_drops_are_grouped(world: World) -> None:
    now = bundle(world, "now")
    kept(world, capture(world, now))
    candidate = bundle(
        world, "next", {"schema": {"type": "object", "required": ["id"]}}, {"rules": ["card:mask=4:2:*"]}
    )

    row = run_regression(world, candidate, now)

    assert row.status == "differs"
    found = {each["kind"]: each for each in row.groups}
    assert {kind: (each["count"], each["pointers"], each["code"]) for kind, each in found.items()} == {
        "changed": (3, ["/card"], None),
        "missing": (1, [], "schema"),
    }
    assert (row.reused, row.computed, row.progress_done, row.progress_total) == (0, 1, 1, 1)
    again = run_regression(world, candidate, now)
    assert (again.status, again.reused, again.computed) == ("differs", 1, 0)
    assert again.groups == row.groups
    assert Verdict.objects.count() == 1


def test_equal_configuration_is_equal_without_a_replay(world: World) -> None:
    now = bundle(world, "now")
    kept(world, capture(world, now))

    row = run_regression(world, now, now)

    assert (row.status, row.computed, row.reused) == ("passed", 0, 0)
    assert [each.outcome for each in RegressionResult.objects.filter(regression=row)] == ["equal"]
    assert Verdict.objects.count() == 0
