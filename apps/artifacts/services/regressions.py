"""Request and cancel regressions, and choose the configurations that they compare. ``regression_runs`` runs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.artifacts.jobs import RunRegression
from apps.fleet.services import facts
from apps.pipelines.models import Draft, Version
from apps.pipelines.services.drafts import does_not_compile
from apps.releases.models import ConfigBundle, Deployment, Regression
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.policy import ReplayPolicy
from apps.tenancy.services import audit
from apps.tenancy.services.state import advance, lock_row
from apps.tenancy.services.tokens import person_behind
from byteor.engine.canonical import sha256
from byteor.engine.machines import RegressionEvent, RegressionStatus
from byteor.engine.regression import summarize
from byteor_cloud.computing.computations import CompiledVersion, compile_version
from byteor_cloud.errors import Conflict, InvalidInput
from byteor_cloud.worker.jobs import enqueue, is_queued

MAX_BASELINES = 5


@dataclass(frozen=True, slots=True)
class Baselines:
    """The configurations to compare with, and those that are not tested, both as JSON data."""

    tested: list[dict[str, Any]]
    not_tested: list[dict[str, Any]]


def request(
    *,
    environment: Environment,
    config_bundle: ConfigBundle | None = None,
    version: Version | None = None,
    draft: Draft | None = None,
    against: Sequence[str] | None = None,
    compiled: CompiledVersion | None = None,
    actor: Actor,
) -> Regression:
    """Queue a regression of exactly one candidate: a config bundle, a version or a draft.

    ``against`` are config hashes of the environment; by default, the candidate is compared with the configurations
    that most agents run. ``compiled`` is the compiled plan of the draft, which is compiled if it is missing. Raises
    InvalidInput for a wrong number of candidates or an unknown config hash, Unprocessable if the draft does not
    compile, and Conflict if the environment permits no replays, or if a regression of the same spec repeatedly killed
    its worker.
    """
    if sum(each is not None for each in (config_bundle, version, draft)) != 1:
        raise InvalidInput("Name exactly one of `config_bundle_id`, `version_id` and `draft_id`.")
    check_request(environment)
    if draft is not None:
        compiled = compiled or compile_version(draft.plan)
        if compiled.errors:
            raise does_not_compile(compiled.errors)
        pipeline, spec_kv = compiled.name, compiled.spec_kv
    else:
        of_version = config_bundle.version if config_bundle is not None else version
        assert of_version is not None  # noqa: S101  exactly one candidate is given
        pipeline, spec_kv = of_version.name, of_version.spec_kv
    found = _named(environment, pipeline, against) if against is not None else running(environment, pipeline)
    with transaction.atomic():
        row = Regression.objects.create(
            environment=environment,
            pipeline=pipeline,
            config_bundle=config_bundle,
            version=version,
            draft=draft,
            spec_kv=spec_kv,
            config_hash=None if config_bundle is None else config_bundle.config_hash,
            baselines=found.tested,
            not_tested=found.not_tested,
            requested_by=actor.display,
            person=person_behind(actor),
        )
        candidate = config_bundle or version or draft
        audit.record(
            "regression.request",
            actor=actor,
            scope=environment,
            resource=("regression", row.pk),
            changes={"candidate": str(candidate), "baselines": [each["config_hash"] for each in found.tested]},
        )
        # Only regressions of the same spec need the same verdicts. The jobs of these regressions run one after the
        # other, so that the second regression finds the verdicts of the first.
        serial = f"regression:{environment.project.organization_id}:{sha256(spec_kv.encode())}"
        enqueue(
            RunRegression(regression_id=str(row.pk)),
            organization=environment.project.organization_id,
            person=row.person,
            serial=serial,
        )
        if not is_queued(RunRegression, serial):
            detail = (
                "An earlier regression of this spec repeatedly killed its worker. Ask an operator to retry its job."
            )
            raise Conflict(detail, code="regression.barred")
    return row


def check_request(environment: Environment) -> None:
    """Raise Conflict if the environment permits no replays, and therefore no regressions."""
    if environment.effective_settings.replay_policy == ReplayPolicy.DISABLED:
        raise Conflict("Replays are disabled in this environment.", code="replay.disabled")


def running(environment: Environment, pipeline: str) -> Baselines:
    """Return the configurations of a pipeline that the environment's agents run, those with most agents first.

    Only the first ``MAX_BASELINES`` are tested.
    """
    run = _run_by_agents(environment, pipeline)
    return Baselines(run[:MAX_BASELINES], _untested(run[MAX_BASELINES:]))


def _run_by_agents(environment: Environment, pipeline: str) -> list[dict[str, Any]]:
    bundles = facts.count_groups(environment).bundles
    built = Deployment.objects.filter(environment=environment, bundle_hash__in=list(bundles), pipeline=pipeline)
    columns = ("bundle_hash", "config_bundle_id", "config_bundle__config_hash", "config_bundle__version_id")
    agents: Counter[str] = Counter()
    newest: dict[str, tuple[UUID, UUID]] = {}
    for bundle_hash, bundle_id, config_hash, version_id in built.order_by("pk").values_list(*columns).distinct():
        agents[config_hash] += bundles.get(bundle_hash, 0)
        newest[config_hash] = (bundle_id, version_id)
    ranked = sorted(agents.items(), key=lambda each: (-each[1], each[0]))
    total = sum(agents.values()) or 1
    return [_baseline(config_hash, *newest[config_hash], count, count / total) for config_hash, count in ranked]


def _named(environment: Environment, pipeline: str, config_hashes: Sequence[str]) -> Baselines:
    run = {each["config_hash"]: each for each in _run_by_agents(environment, pipeline)}
    rows = ConfigBundle.objects.filter(
        environment=environment, config_hash__in=config_hashes, version__name=pipeline
    ).order_by("pk")
    bundles = {row[0]: row[1:] for row in rows.values_list("config_hash", "pk", "version_id")}
    tested = []
    for number, config_hash in enumerate(dict.fromkeys(config_hashes)):
        if config_hash not in bundles:
            detail = f"No config bundle of the pipeline {pipeline} in this environment has this config hash."
            raise InvalidInput.at(f"/against/{number}", detail, code="does_not_exist")
        tested.append(run.pop(config_hash, _baseline(config_hash, *bundles[config_hash], 0, 0.0)))
    return Baselines(tested, _untested(run.values()))


def _untested(run: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: each[name] for name in ("config_hash", "agents")} for each in run]


def _baseline(config_hash: str, bundle_id: UUID, version_id: UUID, agents: int, share: float) -> dict[str, Any]:
    return {
        "config_hash": config_hash,
        "config_bundle_id": str(bundle_id),
        "version_id": str(version_id),
        "agents": agents,
        "share": round(share, 4),
    }


def candidate_of(row: Regression) -> str:
    """Return the name of the candidate, or that of its pipeline if the candidate was a draft that was deleted."""
    return str(row.config_bundle or row.version or row.draft or row.pipeline)


def summarize_unfinished(row: Regression, status: RegressionStatus, error: str) -> str:
    """Return the summary of a regression that was canceled or could not be completed."""
    return summarize(
        candidate=candidate_of(row),
        status=status,
        outcomes={},
        reasons={},
        baselines=row.baselines,
        not_tested=row.not_tested,
        groups=[],
        more=0,
        work=(0, 0),
        error=error,
    )


@transaction.atomic
def cancel(regression: Regression, *, reason: str = "", actor: Actor) -> Regression:
    """Cancel a queued or running regression. Its verdicts are kept. Raises Conflict if the regression has ended."""
    locked = lock_row(regression)
    check_cancellable(locked)
    error = f"canceled: {reason}" if reason else "canceled"
    return advance(
        locked,
        RegressionEvent.CANCEL,
        actor=actor,
        changes={"reason": reason} if reason else {},
        error=error,
        summary=summarize_unfinished(locked, RegressionStatus.CANCELLED, error),
        finished_at=timezone.now(),
    )


def check_cancellable(row: Regression) -> None:
    """Raise Conflict unless the regression is queued or running."""
    if row.status not in {RegressionStatus.QUEUED, RegressionStatus.RUNNING}:
        detail = f"The regression is {row.status}. Only queued and running regressions can be canceled."
        raise Conflict(detail, code="regression.ended")
