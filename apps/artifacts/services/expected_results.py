"""Golden fixtures that also expect the results of deployments that became current with accepted differences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.artifacts.models import Fixture, RegressionResult
from apps.artifacts.services import fixtures
from apps.releases.models import Regression
from apps.tenancy.actors import system_actor
from apps.tenancy.services import audit
from apps.tenancy.services.state import lock_row
from byteor.engine.replay import FixtureOutcome
from byteor_cloud.errors import NotFound

WORKER = system_actor("regressions")
MAX_RESULTS = 20
"""The maximum number of results that a fixture expects in addition to its golden result."""
MAX_NAMED = 5
"""The maximum number of fixtures that an audit event or a ``CurrentFailure`` names."""
_PAGE = 100  # results that are read at a time, because each may have 1,000 groups


def expect_accepted(environment_id: UUID | None = None, pipeline: str | None = None) -> None:
    """Let golden fixtures expect the results of deployments that became current with accepted differences.

    By default, all environments are covered. Idempotent.
    """
    waiting = Regression.objects.filter(newly_accepted__isnull=False)
    if environment_id is not None:
        waiting = waiting.filter(environment=environment_id, pipeline=pipeline)
    for pk in waiting.order_by("pk").values_list("pk", flat=True):
        with suppress(NotFound):  # it was deleted
            _expect(pk)


@transaction.atomic
def _expect(regression_id: UUID) -> None:
    found = Regression.objects.select_related("environment").only("environment").filter(pk=regression_id).first()
    if found is None:
        return
    environment = lock_row(found.environment, related=("project",))
    row = lock_row(found, related=("config_bundle__version",))
    if row.newly_accepted is None or row.config_bundle is None:
        return
    accepted, deployment_id = frozenset(row.newly_accepted["groups"]), row.newly_accepted["deployment_id"]
    bundle = row.config_bundle
    configuration = {"spec_kv": row.spec_kv, "stage_config": bundle.stage_config}
    if len(json.dumps(configuration, ensure_ascii=False).encode()) > fixtures.MAX_GOLDEN_BYTES:
        configuration = {}
    expected = {"config_hash": bundle.config_hash, "deployment_id": deployment_id}
    names = []
    for fixture, result in _accepted_results(row, accepted):
        others = [
            (about, {"result": each["result"]})
            for about, each in zip(fixture.also_expected, fixture.also_golden, strict=True)
            if about["config_hash"] != bundle.config_hash
        ][: MAX_RESULTS - 1]
        fixture.also_expected = [expected, *(about for about, _ in others)]
        fixture.also_golden = [{"result": result, **configuration}, *(each for _, each in others)]
        fixture.revision, fixture.updated_at = fixture.revision + 1, timezone.now()
        fixture.save(update_fields=["also_expected", "also_golden", "revision", "updated_at"])
        names.append(fixture.name)
    row.newly_accepted = None
    row.save(update_fields=["newly_accepted"])
    if names:
        # A waiting deployment that a golden fixture blocks may now give an expected result. Other regressions stay
        # valid, although a fixture with ``MAX_RESULTS`` results may no longer expect the oldest one.
        fixtures.count_change(environment, row.pipeline, is_removal=True)
        audit.record(
            "fixture.expect_accepted",
            actor=WORKER,
            scope=environment,
            resource=("deployment", deployment_id),
            changes={
                "pipeline": row.pipeline,
                "config_hash": bundle.config_hash,
                "fixtures": len(names),
                "names": names[:MAX_NAMED],
            },
        )


def _accepted_results(row: Regression, accepted: frozenset[str]) -> Iterator[tuple[Fixture, dict[str, Any]]]:
    """Yield the fixtures whose differences were all accepted, each with the candidate's result.

    Fixtures that have since been deleted, or now expect another golden result, are left out.
    """
    results = RegressionResult.objects.filter(
        regression=row,
        baseline=None,
        outcome=FixtureOutcome.DIFFERENT,
        verdict__more=0,
        verdict__result__isnull=False,
    ).order_by("pk")
    rows, last = results.values("pk", "fixture_id", "golden_replay_id", "verdict__groups", "verdict__result"), 0
    while page := list(rows.filter(pk__gt=last)[:_PAGE]):
        last = page[-1]["pk"]
        wanted = {
            each["fixture_id"]: each for each in page if {group["id"] for group in each["verdict__groups"]} <= accepted
        }
        for fixture in Fixture.objects.filter(pk__in=list(wanted)).defer("golden").order_by("pk"):
            if fixture.golden_replay_id == wanted[fixture.pk]["golden_replay_id"]:
                yield fixture, wanted[fixture.pk]["verdict__result"]
