"""From approved to the first offers: a deployment's turn, its consent spent, its bundle built. Resumable."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import transaction
from django.utils import timezone

from apps.releases.models import Deployment
from apps.releases.services import agent_parts, approvals, bundles, offers
from apps.releases.services.deployments import RELATED, WORKER, fail, subject_of
from apps.tenancy.models import Environment
from apps.tenancy.services import signing_keys
from apps.tenancy.state import advance, lock
from byteor_cloud import blobs
from byteor_cloud.database import release_connection
from byteor_cloud.engine import freeze
from byteor_cloud.engine.delivery import bundle as delivery
from byteor_cloud.engine.delivery.encoding import canonical
from byteor_cloud.engine.delivery.keys import KeySet
from byteor_cloud.engine.delivery.refusals import ApprovalCode, DeliveryCode, Refused
from byteor_cloud.engine.machines import UNDER_WAY, DeploymentEvent, DeploymentStatus
from byteor_cloud.jobs import Claim

_FAILED_BECAUSE: dict[DeliveryCode | ApprovalCode, str] = {
    ApprovalCode.EXPIRED: "approval_expired",
    ApprovalCode.REVOKED: "approval_revoked",
}


def build(deployment_id: str, claim: Claim | None = None) -> None:
    """Build the deploy bundle and make the first offers. Safe to run twice and to resume after a crash."""
    claim = claim or Claim()
    deployment = _begin(deployment_id, claim)
    if deployment is None:
        return
    built = _bundle_of(deployment)
    release_connection()
    blobs.put(built.bundle_hash, built.tar)
    _offer_first(deployment, built, claim)


@transaction.atomic
def _begin(deployment_id: str, claim: Claim) -> Deployment | None:
    """Spend the approval's one use and fix what goes into the bundle; None when there is nothing to build now."""
    found = Deployment.objects.select_related(*RELATED, "approval", "handed_in").filter(pk=deployment_id).first()
    if found is None or found.environment.deleted_at or found.environment.project.deleted_at:
        return None
    if found.status == DeploymentStatus.BUILDING:
        return found
    environment = lock(found.environment, related=("project__organization",))
    consent = lock(found.consent) if found.consent else None
    deployment = lock(found, related=RELATED)
    claim.confirm()
    if deployment.status != DeploymentStatus.APPROVED or not _has_turn(deployment, environment):
        return None
    if bundles.is_barred(deployment.environment_id, deployment.config_hash):
        fail(deployment, "known_bad", "The configuration was found bad meanwhile.")
        return None
    if consent is not None and deployment.break_glass is None:
        try:
            approvals.use(consent.credential or "", environment, subject_of(deployment))
        except Refused as refused:
            fail(deployment, _FAILED_BECAUSE.get(refused.code, str(refused.code)), refused.detail)
            return None
    keys = signing_keys.key_set(environment.project.organization_id)
    return advance(deployment, DeploymentEvent.BUILD, actor=WORKER, signing_keys=keys.document())


def _has_turn(deployment: Deployment, environment: Environment) -> bool:
    """Whether it may start now. If not it stays ``approved``, and the sweep looks again.

    It waits for the end of a freeze window, for a place below the in-flight limit, and for those that are under way
    with its pipeline or with some of its agents: two releases at once would take each other's agents away. Who was
    asked for earlier goes first, or the older release would replace the newer.
    """
    windows = environment.effective_settings.freeze_windows
    is_frozen = freeze.active_window(windows, timezone.now()) is not None
    if is_frozen and not deployment.freeze_override:
        return False
    here = Deployment.objects.filter(environment=environment)
    under_way = list(here.filter(status__in=UNDER_WAY))
    if len(under_way) >= deployment.policy.max_in_flight_deployments:
        return False
    earlier = here.filter(status=DeploymentStatus.APPROVED, pk__lt=deployment.pk)
    if is_frozen:
        earlier = earlier.exclude(freeze_override="")  # these wait for the window's end
    return not offers.overlaps(deployment, (*under_way, *earlier))


def _bundle_of(deployment: Deployment) -> delivery.BuiltBundle:
    config, environment = deployment.config_bundle, deployment.environment
    about = delivery.ManifestFields(
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
    # A deployment that broke the glass has no approved_at, and carries nothing that says it was approved.
    consent = deployment.consent if deployment.break_glass is None else None
    return delivery.build(
        about,
        config.version.spec_kv.encode(),
        bundles.runtime_config(config).document(),
        consent.credential if consent else None,
        KeySet.parse(canonical(deployment.signing_keys)),
    )


@transaction.atomic
def _offer_first(found: Deployment, built: delivery.BuiltBundle, claim: Claim) -> None:
    """Resolve the target again and offer the first wave, in the transaction that says ``deploying``."""
    lock(found.environment)
    deployment = lock(found, related=RELATED)
    claim.confirm()
    if deployment.status != DeploymentStatus.BUILDING:
        return
    if bundles.is_barred(deployment.environment_id, deployment.config_hash):
        fail(deployment, "known_bad", "The configuration was found bad meanwhile.")
        return
    if (enlisting := agent_parts.muster(deployment)) is None:
        fail(deployment, "empty_target", "No agent matches the target any more.")
        return
    blobs.protect(built.bundle_hash)
    if not blobs.is_stored(built.bundle_hash):  # the search for strays took them, of an attempt long ago
        blobs.put(built.bundle_hash, built.tar)
    deployment = advance(
        deployment,
        DeploymentEvent.OFFER,
        actor=WORKER,
        bundle_hash=built.bundle_hash,
        bundle_size=len(built.tar),
        manifest=built.manifest.document(),
        enlisting=enlisting,
        served_at=datetime.now(UTC),
    )
    agent_parts.enlist(deployment)
    agent_parts.offer(deployment, deployment.agents.filter(wave=0).values_list("agent_id", flat=True))
    offers.wake(deployment.pk)


@transaction.atomic
def give_up(deployment_id: str, error: str) -> None:
    """Fail the deployment whose build failed by itself for the last time; it says nothing of the configuration."""
    deployment = Deployment.objects.filter(pk=deployment_id).first()
    if deployment is not None and deployment.status in {DeploymentStatus.APPROVED, DeploymentStatus.BUILDING}:
        fail(deployment, "build_failed", error[:2000])
