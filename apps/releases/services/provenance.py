"""The origins of bundles that agents ran (deployment, version, approval), and a summary of an environment's agents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Coalesce

from apps.fleet.models import RunningInterval
from apps.fleet.services import facts
from apps.releases.models import ApprovalDecision, Deployment
from apps.tenancy.models import Environment

MAX_VERSIONS = 50  # the maximum number of versions in a summary


@dataclass(frozen=True, slots=True)
class Origin:
    """The deployment behind an interval, its version, config bundle, approval and approvers. Empty if unknown."""

    deployment_id: UUID | None = None
    version_id: UUID | None = None
    config_bundle_id: UUID | None = None
    approval_id: UUID | None = None
    approved_by: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class VersionCount:
    """The number of agents that run a version. Only ``count`` is set for bundles that the environment did not build."""

    version_id: UUID | None
    number: int | None
    pipeline: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The counts of an environment's agents, and the most frequent of the versions that they run."""

    counts: facts.Counts
    versions: list[VersionCount]


def find_origins(environment: Environment, intervals: Collection[RunningInterval]) -> dict[int, Origin]:
    """Return the origin of each interval by the interval's primary key.

    The origin is the environment's deployment that built the bundle, or otherwise the one that the agent reported. The
    two can differ after a rollback, if the agent reports the deployment of its offer instead of the one in the bundle's
    manifest.
    """
    hashes = {each.bundle_hash for each in intervals}
    named = {each.deployment_id for each in intervals if each.deployment_id is not None}
    rows = list(
        Deployment.objects.filter(Q(bundle_hash__in=hashes) | Q(pk__in=named), environment=environment)
        .annotate(consent_id=Coalesce("handed_in_id", "approval_id"))
        .order_by("pk")
        .values("pk", "bundle_hash", "config_bundle_id", "config_bundle__version_id", "consent_id")
    )
    approvers: dict[UUID, list[str]] = {}
    consents = ApprovalDecision.objects.filter(approval__in={row["consent_id"] for row in rows}, decision="approve")
    for approval_id, approver in consents.order_by("pk").values_list("approval_id", "decided_by"):
        approvers.setdefault(approval_id, []).append(approver)
    by_id: dict[UUID | None, Origin] = {row["pk"]: _origin(row, approvers) for row in rows}
    by_hash = {row["bundle_hash"]: by_id[row["pk"]] for row in rows}
    return {each.pk: by_hash.get(each.bundle_hash) or by_id.get(each.deployment_id, Origin()) for each in intervals}


def _origin(row: Mapping[str, Any], approvers: Mapping[UUID, list[str]]) -> Origin:
    return Origin(
        row["pk"],
        row["config_bundle__version_id"],
        row["config_bundle_id"],
        row["consent_id"],
        approvers.get(row["consent_id"], []),
    )


def summarize(environment: Environment) -> Summary:
    """Count the environment's agents by liveness, drift, suspected clone, status and label, and by running version."""
    counts = facts.count(environment)
    version = ("config_bundle__version_id", "config_bundle__version__number", "config_bundle__version__name")
    built = Deployment.objects.filter(environment=environment, bundle_hash__in=list(counts.bundles))
    of_bundle = {row[0]: (row[1], row[2], row[3]) for row in built.values_list("bundle_hash", *version)}
    running = Counter[tuple[Any, Any, Any]]()
    for bundle_hash, agents in counts.bundles.items():
        running[of_bundle.get(bundle_hash, (None, None, None))] += agents
    # Among equal counts, newer versions come first, and unknown bundles come last.
    ranked = sorted(running.items(), key=lambda each: (each[1], str(each[0][0] or "")), reverse=True)
    return Summary(counts, [VersionCount(*key, agents) for key, agents in ranked[:MAX_VERSIONS]])
