"""The build of a deployment: spend the approval, build the deploy bundle, and make the first offers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.releases.models import Deployment
from apps.releases.services import approvals, assignments, attestations, blockers, bundles, replay_gate
from apps.releases.services.deployment_jobs import enqueue_rollout_step
from apps.releases.services.deployments import RELATED, WORKER, fail
from apps.releases.services.timeline import add_entry, advance_deployment
from apps.tenancy.services import signing_keys
from apps.tenancy.services.state import lock_row
from byteor.engine.blockers import Blocker, BlockerCode
from byteor.engine.canonical import canonical
from byteor.engine.machines import DeploymentEvent, DeploymentStatus
from byteor.engine.signing import bundle as deploy_bundle
from byteor.engine.signing.keys import KeySet
from byteor.engine.signing.refusals import ApprovalCode, Refused
from byteor_cloud.database.compiled import CompiledQuery
from byteor_cloud.database.connections import release_connection
from byteor_cloud.storage import blobs
from byteor_cloud.worker.jobs import Claim

_ATTEMPTS = 3
_FAILURE_REASONS: dict[str, str] = {
    ApprovalCode.EXPIRED: "approval_expired",
    ApprovalCode.REVOKED: "approval_revoked",
}
_found = CompiledQuery(
    lambda pk: Deployment.objects.select_related(*RELATED, "approval", "handed_in").filter(pk=pk), UUID
)


def build(deployment_id: str, claim: Claim | None = None) -> None:
    """Build the deploy bundle and make the first offers, if the build can start. Safe to run again after a crash."""
    claim = claim or Claim()
    deployment = _prepare_and_start(deployment_id, claim)
    if deployment is None:
        return
    built = _build_bundle(deployment)
    release_connection()
    blobs.put(built.bundle_hash, built.tar)
    _offer_first_wave(deployment, built, claim)


def _prepare_and_start(deployment_id: str, claim: Claim) -> Deployment | None:
    """Start the build as ``_start_building`` does.

    If the start needs a signed test result, sign it outside of the transaction, and try again.
    """
    prepared = None
    for _ in range(_ATTEMPTS):
        try:
            return _start_building(deployment_id, claim, prepared)
        except attestations.Unprepared:
            prepared = attestations.prepare(UUID(deployment_id))
    return None  # the regression or its acceptances change too fast; a periodic job enqueues the build again


@transaction.atomic
def _start_building(deployment_id: str, claim: Claim, prepared: attestations.SignedTest | None) -> Deployment | None:
    """Spend the approval, if necessary, and return the deployment with the status ``building``.

    Return None if the build cannot start. A known bad configuration, an unusable approval, or a replay gate that has
    blocked the deployment for too long fails the deployment. If there are no blockers except those of the replay gate,
    the approval is spent before the gate is checked, so that the approval cannot expire while the gate blocks. Raises
    Unprepared, with nothing changed, if the build could start but ``prepared`` is not the deployment's signed test.
    """
    found = _found.first(UUID(deployment_id))
    if found is None or found.environment.deleted_at or found.environment.project.deleted_at:
        return None
    if found.status == DeploymentStatus.BUILDING:
        return found
    environment = lock_row(found.environment, related=("project__organization",))
    consent = lock_row(found.consent) if found.consent else None
    deployment = lock_row(found, related=RELATED)
    claim.confirm()
    if deployment.status != DeploymentStatus.APPROVED:
        return None
    found_blockers = blockers.find_start_blockers(environment, [deployment.pk], timezone.now())[deployment.pk]
    gate = [each for each in found_blockers if each.code.is_of_gate]
    is_blocked_only_by_gate = bool(gate) and len(gate) == len(found_blockers)
    if not is_blocked_only_by_gate and deployment.gate_until is not None:
        deployment.gate_until = None  # when only the gate blocks the deployment again, the full time starts again
        deployment.save(update_fields=["gate_until"])
    if _has_waited_too_long(deployment, gate):
        if replay_gate.refresh(deployment, is_blocked=True):
            return None  # the regression was deleted or outdated, so another one was requested
        fail(deployment, "replay_gate", " ".join(each.detail for each in gate))
        return None
    if len(gate) < len(found_blockers):
        return None  # the sweep enqueues the build again
    if bundles.is_known_bad(deployment.environment_id, deployment.config_hash):
        fail(deployment, "known_bad", "The configuration has become known bad.")
        return None
    if consent is not None and deployment.break_glass is None and deployment.gated_at is None:
        try:
            approvals.spend_credential(consent.credential or "", environment, deployment.subject)
        except Refused as refused:
            fail(deployment, _FAILURE_REASONS.get(refused.code, str(refused.code)), refused.detail)
            return None
    if replay_gate.is_governed(deployment) and _is_gated(deployment, gate):
        return None
    if replay_gate.is_tested(deployment):
        attestations.store(deployment, prepared)
    keys = signing_keys.key_set(environment.project.organization_id)
    return advance_deployment(deployment, DeploymentEvent.BUILD, actor=WORKER, signing_keys=keys.document())


def _has_waited_too_long(deployment: Deployment, gate: Sequence[Blocker]) -> bool:
    until = deployment.gate_until
    is_running = any(each.code is BlockerCode.GATE_RUNNING for each in gate)
    return bool(gate) and not is_running and until is not None and until <= timezone.now()


def _is_gated(deployment: Deployment, gate: Sequence[Blocker]) -> bool:
    """Return whether the gate blocks the build.

    A deleted or outdated regression is renewed, and the build waits for the new one.
    """
    is_waiting = any(each.code is BlockerCode.GATE_RUNNING for each in gate)
    is_waiting = is_waiting or replay_gate.refresh(deployment, is_blocked=bool(gate))
    if not (gate or is_waiting):
        return False
    if deployment.gated_at is None:
        deployment.gated_at = timezone.now()
        renewed = (
            "The fixtures, the known bad configurations, the engine or what the target's agents run has changed. "
            "The regression is repeated."
        )
        detail = {"reason": " ".join(each.detail for each in gate) or renewed}
        add_entry(deployment, "gate_blocked", actor=WORKER, detail=detail)
    if deployment.gate_until is None and not is_waiting:
        deployment.gate_until = timezone.now() + timedelta(seconds=deployment.policy.approval_ttl_s)
    deployment.save(update_fields=["gated_at", "gate_until"])
    return True


def _build_bundle(deployment: Deployment) -> deploy_bundle.BuiltBundle:
    config, environment = deployment.config_bundle, deployment.environment
    manifest_fields = deploy_bundle.ManifestFields(
        org_id=str(environment.project.organization_id),
        project_id=str(environment.project_id),
        environment_id=str(environment.pk),
        deployment_id=str(deployment.pk),
        version_id=str(config.version_id),
        config_bundle_id=str(config.pk),
        posture=environment.posture,
        spec_hash=config.version.spec_hash,
        config_hash=config.config_hash,
        capabilities=tuple(config.required_capabilities),
        created_at=deployment.created_at,
        approved_at=deployment.approved_at,
    )
    # The bundle of a break-glass deployment must not claim an approval, so it has no credential and no ``approved_at``.
    consent = deployment.consent if deployment.break_glass is None else None
    return deploy_bundle.build_bundle(
        manifest_fields,
        config.version.spec_kv.encode(),
        bundles.runtime_config(config).document(),
        consent.credential if consent else None,
        KeySet.parse(canonical(deployment.signing_keys)),
    )


@transaction.atomic
def _offer_first_wave(found: Deployment, built: deploy_bundle.BuiltBundle, claim: Claim) -> None:
    """Resolve the target again, set the status ``deploying`` and make the first offers, or fail the deployment."""
    lock_row(found.environment)
    deployment = lock_row(found, related=RELATED)
    claim.confirm()
    if deployment.status != DeploymentStatus.BUILDING:
        return
    if bundles.is_known_bad(deployment.environment_id, deployment.config_hash):
        fail(deployment, "known_bad", "The configuration has become known bad.")
        return
    if (enlisting := assignments.start_enlisting(deployment)) is None:
        fail(deployment, "empty_target", "The target no longer matches any available agents.")
        return
    blobs.protect(built.bundle_hash)
    if not blobs.is_stored(built.bundle_hash):  # the cleaning job may have deleted the blob before it was protected
        blobs.put(built.bundle_hash, built.tar)
    deployment = advance_deployment(
        deployment,
        DeploymentEvent.OFFER,
        actor=WORKER,
        bundle_hash=built.bundle_hash,
        bundle_size=len(built.tar),
        manifest=built.manifest.document(),
        enlisting=enlisting,
        served_at=datetime.now(UTC),
    )
    assignments.enlist(deployment)
    assignments.offer(deployment, deployment.agents.filter(wave=0).values_list("agent_id", flat=True))
    enqueue_rollout_step(deployment.pk)


@transaction.atomic
def fail_build(deployment_id: str, error: str) -> None:
    """Fail a deployment whose build failed in its last attempt. The configuration does not become known bad."""
    deployment = Deployment.objects.filter(pk=deployment_id).first()
    if deployment is not None and deployment.status in {DeploymentStatus.APPROVED, DeploymentStatus.BUILDING}:
        fail(deployment, "build_failed", error[:2000])
