"""Commands on config bundles, deployments, approvals, held offers, and the labels of many agents."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from apps.fleet.services.labels import LabelChange
from apps.releases.api.serializers.deployments import (
    OptionalReasonSerializer,
    ReasonSerializer,
    RetrySerializer,
    ReviewersSerializer,
)
from apps.releases.api.serializers.held_offers import HeldOffersSerializer
from apps.releases.api.serializers.labels import RelabeledSerializer, RelabelSerializer
from apps.releases.models import Approval, ConfigBundle, Deployment
from apps.releases.services import approvals, bundles, deployments, relabeling, restored, rollout_steps
from apps.releases.services.relabeling import Relabeled
from apps.releases.services.reviewers import check_change
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services.state import check_transition
from byteor.engine.machines import DeploymentEvent
from byteor_cloud.api.commands import command
from byteor_cloud.api.operations import ID, Operation
from byteor_cloud.errors import Conflict


@command()
@Operation(
    "clearConfigBundle",
    P.OPERATE_ENVIRONMENT,
    body=ReasonSerializer,
    errors=(Conflict,),
    example={"reason": "The disk of the host was full."},
)
def clear(bundle: ConfigBundle, *, reason: str, actor: Actor) -> None:
    """Clear a known bad config bundle.

    Allows the config bundle's configuration to be deployed in this environment again. The reason is recorded in the
    audit trail.
    """
    bundles.clear_known_bad(bundle, reason=reason, actor=actor)


@command(check=partial(check_transition, event=DeploymentEvent.ABORT))
@Operation(
    "abortDeployment",
    P.OPERATE_ENVIRONMENT,
    body=OptionalReasonSerializer,
    errors=(Conflict,),
    example={"reason": "The wrong version was chosen."},
)
def abort(deployment: Deployment, *, reason: str, actor: Actor) -> None:
    """Abort a deployment.

    Stops the deployment and sets its status to `failed` with the reason `aborted`. Offers that agents have not started
    are withdrawn. A pending approval is revoked, except the approval after break-glass. Agents that already run the
    bundle keep running it. To restore what they ran before, roll back the deployment.
    """
    deployments.abort(deployment, reason=reason, actor=actor)


@command(check=partial(deployments.check_set_paused, paused=True))
@Operation(
    "pauseDeployment",
    P.OPERATE_ENVIRONMENT,
    body=OptionalReasonSerializer,
    errors=(Conflict,),
    example={"reason": "The market opens in an hour."},
)
def pause(deployment: Deployment, *, reason: str, actor: Actor) -> None:
    """Pause a deployment.

    Stops offering the deployment to further agents until it is resumed. Pausing does not change the status. A paused
    deployment can still fail, or become `active` when its last wave has finished. Both end the pause.
    """
    deployments.set_paused(deployment, paused=True, reason=reason, actor=actor)


@command(check=partial(deployments.check_set_paused, paused=False))
@Operation(
    "resumeDeployment",
    P.OPERATE_ENVIRONMENT,
    body=OptionalReasonSerializer,
    errors=(Conflict,),
    example={"reason": "The market has closed."},
)
def resume(deployment: Deployment, *, reason: str, actor: Actor) -> None:
    """Resume a deployment.

    Continues a paused deployment. Its offers that have been held since a restore are resumed as well.
    """
    deployments.set_paused(deployment, paused=False, reason=reason, actor=actor)


@command(check=deployments.check_retry)
@Operation(
    "retryDeployment",
    P.OPERATE_ENVIRONMENT,
    body=RetrySerializer,
    errors=(Conflict,),
    example={"reason": "The network is back.", "agents": [ID]},
)
def retry(deployment: Deployment, *, reason: str, agents: Collection[UUID] | None = None, actor: Actor) -> None:
    """Retry a deployment.

    Offers the deployment again to all agents that failed, or only to those listed in `agents`. Agents that are
    drained or decommissioned, or have another offer, are not retried. The status of a failed deployment becomes
    `deploying`. The status of any other deployment does not change.
    """
    deployments.retry(deployment, agents=agents, reason=reason, actor=actor)


@command(check=rollout_steps.check_next_wave)
@Operation(
    "startNextWave",
    P.OPERATE_ENVIRONMENT,
    body=OptionalReasonSerializer,
    errors=(Conflict,),
    example={"reason": "The first wave ran for an hour."},
)
def next_wave(deployment: Deployment, *, reason: str, actor: Actor) -> None:
    """Start the next wave.

    Starts the next wave now, which ends a manual hold and skips the rest of the pause. Returns 409 unless the
    deployment is deploying, all waves that have started have finished, the current one within the failure threshold,
    and there is a next wave. Also returns 409 if the configuration is known bad, while the deployment is paused, while
    the wave waits for approval, and in a freeze window that the deployment does not override.
    """
    rollout_steps.start_next_wave(deployment, reason=reason, actor=actor)


@command(check=check_change)
@Operation(
    "updateDeploymentReviewers",
    P.MANAGE_ORG_MEMBERSHIPS,
    body=ReviewersSerializer,
    errors=(Conflict,),
    example={"reviewers": [ID], "reason": "Ada has left the company."},
)
def change_reviewers(deployment: Deployment, *, reviewers: Sequence[UUID], reason: str, actor: Actor) -> None:
    """Update the reviewers of a deployment.

    Replaces the list of the people who may decide on the deployment's approvals, for example because one of them has
    left. Then only the consents of the new reviewers count, or all consents if the new list is empty. Reviewers who
    have approved can stay in the list even if they have left. If enough of these consents exist already, the approval
    is granted, unless it has expired or the report of its wave is outdated. Only an `org_admin` may do this. Returns
    409 if the deployment needs no approval, or if the replay gate blocks an approval that would be granted. Also
    returns 409 unless the deployment is pending approval or deploying, or its approval after break-glass is pending.
    """
    approvals.change_reviewers(deployment, reviewer_ids=reviewers, reason=reason, actor=actor)


@command(check=approvals.check_revoke)
@Operation("revokeApproval", P.OPERATE_ENVIRONMENT, errors=(Conflict,))
def revoke(approval: Approval, *, actor: Actor) -> None:
    """Revoke an approval.

    Revokes an approval that is pending, or that is approved and has not been used. Its deployment or replay then does
    not start. A break-glass deployment is rolled back, if possible. If not, it keeps running if it is current, and
    fails if it has not finished. The approval of a wave is requested again.
    """
    approvals.revoke(approval, actor=actor)


@command(check=approvals.check_open)
@Operation("remindApproval", P.OPERATE_ENVIRONMENT, errors=(Conflict,))
def remind(approval: Approval, *, actor: Actor) -> None:
    """Send a reminder of an approval.

    Sends another notification to the people who can still decide on the pending approval. Only the requester, or an API
    key that the requester created, can send a reminder. If an API key requested the approval, the requester is the
    person who created the key. Returns 403 to other callers, 409 if the approval is not pending or has expired, and 429
    within an hour of the last reminder.
    """
    approvals.remind(approval, actor=actor)


@command(check=restored.check_resume_offers)
@Operation(
    "resumeOffers",
    P.OPERATE_ENVIRONMENT,
    needs_on_prod=P.MANAGE_ENVIRONMENT,
    body=OptionalReasonSerializer,
    responses={200: HeldOffersSerializer},
    errors=(Conflict,),
    example={"reason": "The agents may return to the bundles that they had at the time of the backup."},
)
def resume_offers(environment: Environment, *, reason: str, actor: Actor) -> restored.HeldOffers:
    """Resume the offers of an environment.

    Lets the agents get the offers that have been held since the installation was restored from a backup. Agents that
    were moved to a newer bundle after the backup return to the bundle of the backup. Paused deployments stay paused.
    Returns 409 if no offers are held. In a `prod` environment, this requires the permission `environment:manage`.
    """
    return restored.resume_offers(environment, reason=reason, actor=actor)


@command()
@Operation(
    "labelAgents",
    P.OPERATE_ENVIRONMENT,
    needs_on_prod=P.MANAGE_ENVIRONMENT,
    body=RelabelSerializer,
    responses={200: RelabeledSerializer},
    example={"selector": {"zone": "eu-1"}, "set": {"ring": "canary"}, "unset": ["trial"], "dry_run": True},
)
def change(
    environment: Environment, *, selector: dict[str, str], dry_run: bool, actor: Actor, **changes: Any
) -> Relabeled:
    """Change the labels of many agents.

    Changes the labels of all agents that match the selector, in one transaction. Changed agents that now match the
    target of a current deployment can then be offered that deployment, but not if they are drained or have an offer of
    a deployment in flight. Agents that no longer match keep their bundle. In a `prod` environment, this requires the
    permission `environment:manage`. Use `dry_run` to see the effect first.
    """
    labels = LabelChange(changes.get("set", {}), changes.get("unset", ()))
    return relabeling.relabel(environment, selector, labels, dry_run=dry_run, actor=actor)
