"""Request and cancel regressions. The job ``artifacts.regression`` runs them."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from apps.pipelines.models import Draft, Version
from apps.pipelines.services.drafts import does_not_compile
from apps.releases.models import ConfigBundle, Regression
from apps.releases.services import regression_queue, replay_gate
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.policy import ReplayPolicy
from apps.tenancy.services.state import advance, keep_environments, lock_row
from byteor.engine.machines import UNFINISHED_REGRESSION, RegressionEvent, RegressionStatus
from byteor_cloud.computing.computations import CompiledVersion, compile_version
from byteor_cloud.errors import Conflict, InvalidInput


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
    that most agents run. ``compiled`` is the draft's compiled plan. Without it, the draft is compiled here. Raises
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
    if against is None:
        found = regression_queue.running(environment, pipeline)
    else:
        found = regression_queue.named(environment, pipeline, against)
    row = Regression(
        environment=environment,
        pipeline=pipeline,
        config_bundle=config_bundle,
        version=version,
        draft=draft,
        spec_kv=spec_kv,
        baselines=found.tested,
        not_tested=found.not_tested,
    )
    with transaction.atomic():
        if not regression_queue.queue(row, actor=actor):
            raise Conflict(regression_queue.BARRED, code="regression.barred")
        replay_gate.attach(row, actor=actor)
    return row


def check_request(environment: Environment) -> None:
    """Raise Conflict if the environment permits no replays, and therefore no regressions."""
    if environment.effective_settings.replay_policy == ReplayPolicy.DISABLED:
        raise Conflict("Replays are disabled in this environment.", code="replay.disabled")


@transaction.atomic
def cancel(regression: Regression, *, reason: str = "", actor: Actor) -> Regression:
    """Cancel a queued or running regression. Its verdicts are kept. Raises Conflict if the regression has ended."""
    keep_environments(regression.environment_id)
    locked = lock_row(regression)
    check_cancellable(locked)
    error = f"canceled: {reason}" if reason else "canceled"
    canceled = advance(
        locked,
        RegressionEvent.CANCEL,
        actor=actor,
        changes={"reason": reason} if reason else {},
        error=error,
        summary=regression_queue.summarize_unfinished(locked, RegressionStatus.CANCELLED, error),
        finished_at=timezone.now(),
    )
    replay_gate.end(canceled)
    return canceled


def check_cancellable(row: Regression) -> None:
    """Raise Conflict unless the regression is queued or running."""
    if row.status not in UNFINISHED_REGRESSION:
        detail = f"The regression is {row.status}. Only queued and running regressions can be canceled."
        raise Conflict(detail, code="regression.ended")
