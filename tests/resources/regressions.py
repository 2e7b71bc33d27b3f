"""Regressions: tests of a candidate with the fixtures of its pipeline."""

from __future__ import annotations

from django.utils import timezone

from apps.releases.models import Acceptance, ConfigBundle, Regression
from apps.releases.services import acceptances, regressions
from tests.permissions import OPERATE, VIEW
from tests.resources import ERROR, REASON, Act, Call, E, Place, Resource, Table
from tests.resources.config_bundles import bundle
from tests.worlds import plan, run_jobs

GROUP = "7d1e" * 16


def candidate(place: Place) -> ConfigBundle:
    untested = place.world.version(place.environment, plan("untested"))
    return place.world.bundle(place.environment, place.name("untested"), version=untested)


def regression(place: Place) -> Regression:
    """Request a regression, and let the worker run it."""
    made = queued(place)
    run_jobs()
    made.refresh_from_db()
    return made


def queued(place: Place) -> Regression:
    """Request a regression of a config bundle whose pipeline has no fixtures, and leave it in the queue."""
    return regressions.request(
        environment=place.environment, config_bundle=place.get(candidate), actor=place.world.operator.actor
    )


def differing(place: Place) -> Regression:
    """Request a regression, and pretend that it has found a difference."""
    made = queued(place)
    shown = {
        "id": GROUP, "egress": "out", "kind": "changed", "pointers": ["/card"], "code": None, "count": 1,
        "baselines": [{"config_hash": None, "count": 1}], "fixture_count": 1, "fixtures": [],
        "verdict_id": str(made.pk),
    }  # fmt: skip
    Regression.objects.filter(pk=made.pk).update(
        status="differs", groups=[shown], outcomes={"different": 1}, finished_at=timezone.now()
    )
    return made


def acceptance(place: Place) -> Acceptance:
    """Accept a difference."""
    return acceptances.accept(
        differing(place), groups=[GROUP], reason="It is wanted.", actor=place.world.reviewer.actor
    )


RESOURCE = Resource(
    calls=(
        Call("listRegressions", "GET", E + "/regressions", VIEW, null=frozenset({"not_tested", "summary"})),
        Call(
            "requestRegression", "POST", E + "/regressions", OPERATE, 202,
            values=lambda place: {"config_bundle_id": str(place.get(bundle).pk)},
        ),
        Call("getRegression", "GET", E + "/regressions/{id}", VIEW),
        Call(
            "acceptDifferences", "POST", E + "/regressions/{id}/acceptances", OPERATE, 201, on=differing,
            values=lambda place: {"groups": [GROUP], "reason": "It is wanted."},
        ),
        Call("cancelRegression", "POST", E + "/regressions/{id}/cancel", OPERATE, on=queued),
    ),
    tables=(
        Table(
            "releases.regression", VIEW, regression, "Regressions",
            acts={
                "accept": Act("acceptDifferences", values={"groups": GROUP, "reason": "It is wanted."}),
                "cancel": Act("cancelRegression"),
            },
            large=frozenset({"spec_kv", "not_tested", "groups", "summary", "engine", "tests", "newly_accepted"}),
            short={"baselines": "at most five", "error": ERROR, "outcomes": "five numbers"},
        ),
        Table("releases.acceptance", short={"reason": REASON}),
        Table("releases.accepteddifference"),
        Table("releases.attestation", large=frozenset({"envelope"})),
        Table("releases.fixturerevision"),
        Table("artifacts.regressionresult", short={"error": ERROR}),
        Table("artifacts.verdict", large=frozenset({"groups", "result"}), short={"error": ERROR}),
        Table("artifacts.verdictexample", large=frozenset({"example"})),
    ),
    ids={"regressions": regression},
)  # fmt: skip
