"""Regressions of what environments run now: after a release, its configuration is tested once with golden fixtures.

The configuration is tested again when a fixture was added, when a fixture's expectation or expiry was changed, when a
configuration of the pipeline became known bad or was cleared, and when the engine has changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib.postgres.expressions import ArraySubquery
from django.db import transaction
from django.db.models import Case, Count, Exists, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Coalesce, JSONObject

from apps.artifacts.models import Fixture, RegressionResult
from apps.artifacts.services.expected_results import MAX_NAMED, WORKER
from apps.artifacts.services.fixture_batches import uses_packages
from apps.artifacts.services.fixtures import is_expired
from apps.releases.models import Deployment, FixtureRevision, Regression
from apps.releases.services import regression_queue
from apps.tenancy.models import Environment
from apps.tenancy.policy import ReplayPolicy
from apps.tenancy.services import audit
from apps.tenancy.services.state import lock_row
from byteor.engine.machines import UNFINISHED_REGRESSION, DeploymentStatus, RegressionStatus
from byteor.engine.replay import FixtureOutcome
from byteor_cloud.captures.engine_version import engine_digest
from byteor_cloud.errors import NotFound

MAX_FAILURES = 20
_FAILING = (RegressionStatus.DIFFERS, RegressionStatus.FAILED)
FAILING_OUTCOMES = (FixtureOutcome.DIFFERENT, FixtureOutcome.FAILED, FixtureOutcome.UNSTABLE)


def queue_due(environment_id: UUID | None = None, pipeline: str | None = None) -> int:
    """Queue a regression of each current deployment that was not tested yet with the current fixtures and engine.

    Without ``environment_id``, all environments are covered. Deployments that cannot be tested now are skipped (see
    ``_find_due``). Returns the number of new regressions.
    """
    rows = Deployment.objects.all()
    if environment_id is not None:
        rows = rows.filter(environment=environment_id, pipeline=pipeline)
    return sum(_queue(deployment) for deployment in _find_due(rows))


def _find_due(rows: QuerySet[Deployment]) -> list[Deployment]:
    """Return the current deployments that are due, each with the ``revision`` of its pipeline's fixtures."""
    same = {"environment": OuterRef("environment"), "pipeline": OuterRef("pipeline")}
    tests = Regression.objects.filter(of_current=True, config_bundle=OuterRef("config_bundle"))
    tested = tests.filter(fixtures_revision=OuterRef("revision"), engine__isnull=False).order_by("-pk")
    accepted = Regression.objects.filter(pk=OuterRef("regression"), newly_accepted__isnull=False)
    current = (
        rows.filter(
            Exists(Fixture.objects.filter(~is_expired(), golden_replay_id__isnull=False, **same)),
            # If the deployment has accepted results, ``expect_accepted`` must first add them to the fixtures.
            ~Exists(accepted),
            ~Exists(tests.filter(status__in=UNFINISHED_REGRESSION)),
            is_current=True,
            status=DeploymentStatus.ACTIVE,
            environment__in=Environment.objects.live(),
        )
        .annotate(revision=Coalesce(Subquery(FixtureRevision.objects.filter(**same).values("revision")), Value(0)))
        .annotate(
            engines=ArraySubquery(tested.values(engine_json=JSONObject(ops="engine__ops", digest="engine__digest")))
        )
        .select_related("environment")
        .only("pipeline", "config_bundle_id", "environment__settings", "environment__posture")
    )
    digests: dict[frozenset[str], str] = {}
    return [
        deployment
        for deployment in current.order_by("pk")
        if deployment.environment.effective_settings.replay_policy != ReplayPolicy.DISABLED
        and not _is_tested(deployment.engines, digests)
    ]


def _is_tested(engines: Collection[dict[str, Any]], digests: dict[frozenset[str], str]) -> bool:
    """Return whether the current engine is one of those with which a configuration was tested."""
    for each in engines:
        # All sets of built-in ops have the same digest.
        ops = frozenset(each["ops"] if uses_packages(each["ops"]) else ())
        if ops not in digests:
            digests[ops] = engine_digest(ops)
        if each["digest"] == digests[ops]:
            return True
    return False


@transaction.atomic
def _queue(found: Deployment) -> bool:
    """Queue a regression of a deployment. Return False if the deployment is no longer due.

    If an earlier regression of the same spec repeatedly killed its worker, the new regression fails immediately.
    """
    try:
        lock_row(found.environment)
    except NotFound:
        return False
    due = _find_due(Deployment.objects.filter(pk=found.pk))
    if not due:
        return False
    deployment = Deployment.objects.select_related("config_bundle__version", "environment__project").get(pk=found.pk)
    bundle = deployment.config_bundle
    row = Regression(
        environment=deployment.environment,
        pipeline=deployment.pipeline,
        config_bundle=bundle,
        spec_kv=bundle.version.spec_kv,
        of_current=True,
        # Set now, so that a regression that is canceled before its start is not queued again.
        fixtures_revision=due[0].revision,  # type: ignore[attr-defined]  # an annotation
    )
    row.engine = regression_queue.engine_of(row)
    report(regression_queue.queue_or_fail(row, actor=WORKER, worker=WORKER))
    return True


def report(row: Regression) -> None:
    """Record ``fixture.current_fails`` if a regression of what runs now has failed or shows differences.

    Call this in the transaction in which the regression ends. Nothing is recorded if another config bundle has become
    current.
    """
    if not row.of_current or row.status not in _FAILING:
        return
    current = Deployment.objects.filter(
        environment=row.environment_id, pipeline=row.pipeline, config_bundle=row.config_bundle_id, is_current=True
    )
    deployment_id = current.values_list("pk", flat=True).first()
    if deployment_id is None:
        return
    failing = RegressionResult.objects.filter(regression=row, outcome__in=FAILING_OUTCOMES).order_by("pk")
    audit.record(
        "fixture.current_fails",
        actor=WORKER,
        scope=row.environment,
        resource=("regression", row.pk),
        changes={
            "pipeline": row.pipeline,
            "deployment": str(deployment_id),
            "failing": failing.count(),
            "fixtures": list(failing.values_list("fixture_name", flat=True)[:MAX_NAMED]),
        },
    )


@dataclass(frozen=True, slots=True)
class CurrentFailure:
    """A current deployment that fails golden fixtures: the regression that shows it, and the fixtures' names.

    ``count`` is the number of these fixtures, and ``names`` contains the first names. If ``count`` is 0, the regression
    could not be completed.
    """

    deployment_id: UUID
    pipeline: str
    regression_id: UUID
    count: int
    names: list[str]


def newest_tests(rows: QuerySet[Deployment]) -> QuerySet[Any, tuple[UUID, str, Mapping[str, Any]]]:
    """Return the input of ``read_failures`` for at most ``MAX_FAILURES`` of the current deployments in ``rows``.

    Only deployments whose newest finished regression has failed or shows differences are included. Canceled regressions
    do not count.
    """
    current = rows.filter(is_current=True).annotate(newest=newest_test()).filter(newest__status__in=_FAILING)
    return current.order_by("pipeline").values_list("pk", "pipeline", "newest")[:MAX_FAILURES]


def newest_test() -> Subquery:
    """Return a subquery with the newest finished regression of a current deployment, for ``read_failures``.

    Canceled regressions do not count. The regression is an object with ``id``, ``status``, ``error`` and ``names``: the
    names of the failing fixtures, or null if it has passed.
    """
    failing = _failing_results().order_by("pk")
    names = Case(When(status__in=_FAILING, then=ArraySubquery(failing.values("fixture_name"))))
    found = JSONObject(id="pk", status="status", error="error", names=names)
    return Subquery(_completed_tests().values(found=found)[:1])


def _completed_tests() -> QuerySet[Regression]:
    """Return the finished, not canceled regressions of the current deployment in an outer query, newest first."""
    return Regression.objects.filter(
        of_current=True, config_bundle=OuterRef("config_bundle"), status__in=[*_FAILING, RegressionStatus.PASSED]
    ).order_by("-pk")


def _failing_results(now: datetime | None = None) -> QuerySet[RegressionResult]:
    """Return the failing results of the regression in an outer query.

    Results of fixtures that have since been deleted or expired, or now expect another golden result, are left out.
    """
    same = Fixture.objects.filter(
        ~is_expired(since=now), pk=OuterRef("fixture_id"), golden_replay_id=OuterRef("golden_replay_id")
    )
    return RegressionResult.objects.filter(Exists(same), regression=OuterRef("pk"), outcome__in=FAILING_OUTCOMES)


def read_failures(current: Iterable[tuple[UUID, str, Mapping[str, Any] | None]]) -> list[CurrentFailure]:
    """Return the first failures that the newest finished regressions of current deployments show.

    Fixtures that have since been deleted or expired, or now expect another golden result, are left out.
    ``current`` has the id, the pipeline and the ``newest_test`` of each current deployment.
    """
    failures = []
    for pk, pipeline, test in current:
        if test is None or test["status"] not in _FAILING:
            continue
        failing = test["names"]
        if failing or test["error"] is not None:
            failures.append(CurrentFailure(pk, pipeline, UUID(test["id"]), len(failing), failing[:MAX_NAMED]))
    return failures[:MAX_FAILURES]


def failing_tests(rows: QuerySet[Deployment], now: datetime) -> QuerySet[Regression]:
    """Return the newest finished regressions of the current deployments in ``rows``, but only those that show failures.

    Each has the number of failing fixtures as ``failing``. Canceled regressions do not count.
    """
    newest = rows.filter(is_current=True).annotate(newest=Subquery(_completed_tests().values("pk")[:1]))
    results = _failing_results(now).order_by()
    count = results.values("regression").annotate(count=Count("*")).values("count")
    return Regression.objects.filter(
        Q(Exists(results)) | Q(error__isnull=False), pk__in=newest.order_by().values("newest"), status__in=_FAILING
    ).annotate(failing=Coalesce(Subquery(count), Value(0)))


def is_proof() -> Q:
    """Return the condition for the regressions that ``queue_due`` may still need.

    They test the config bundle of a current deployment, and the ``revision`` of the pipeline's fixtures is still the
    same.
    """
    revisions = FixtureRevision.objects.filter(environment=OuterRef("environment"), pipeline=OuterRef("pipeline"))
    current = Deployment.objects.filter(is_current=True, config_bundle=OuterRef("config_bundle"))
    revision = Coalesce(Subquery(revisions.values("revision")), Value(0))
    return Q(Exists(current), of_current=True, fixtures_revision=revision)
