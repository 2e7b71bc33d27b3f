"""The pipelines and versions in the bundles that agents run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet, Sum

from apps.fleet.models import PulseCount
from apps.releases.models import Deployment
from apps.tenancy.models import Environment

_MOST_BUNDLES = 1_000


@dataclass(frozen=True, slots=True)
class BundleVersion:
    """The version in a bundle: its id, its pipeline and its number."""

    id: UUID
    pipeline: str
    number: int


def runs(pipeline: str | None, number: int | None) -> Q:
    """Return the condition that a pulse's agent runs this version of this pipeline. None means any."""
    own = Deployment.objects.filter(environment=OuterRef("environment"), bundle_hash=OuterRef("running_bundle_hash"))
    return Q(Exists(_with_version(own, pipeline, number)))


def runs_in(environments: QuerySet[Environment], pipeline: str | None, number: int | None) -> Q:
    """Return a condition like that of ``runs``, for agents of these environments.

    Only the bundles of the newest ``_MOST_BUNDLES`` deployments of the version are used. An agent also matches if
    another of these environments built its bundle.
    """
    built = Deployment.objects.filter(environment__in=environments).exclude(bundle_hash=None)
    newest = (
        _with_version(built, pipeline, number).order_by("-id").values_list("bundle_hash", flat=True)[:_MOST_BUNDLES]
    )
    return Q(running_bundle_hash__in=set(newest))


def _with_version(built: QuerySet[Deployment], pipeline: str | None, number: int | None) -> QuerySet[Deployment]:
    if pipeline is not None:
        built = built.filter(pipeline=pipeline)
    return built if number is None else built.filter(config_bundle__version__number=number)


def versions_of(environments: QuerySet[Environment], bundle_hashes: Collection[str]) -> dict[str, BundleVersion]:
    """Return the version in each of these bundles, by bundle hash.

    Bundles that none of the environments built are left out, because an agent may report the hash of any bundle.
    """
    built = Deployment.objects.filter(environment__in=environments, bundle_hash__in=bundle_hashes).values_list(
        "bundle_hash", "config_bundle__version_id", "pipeline", "config_bundle__version__number"
    )
    return {
        bundle_hash: BundleVersion(version_id, pipeline, number)
        for bundle_hash, version_id, pipeline, number in built
        if bundle_hash is not None
    }


def count_versions(environments: QuerySet[Environment]) -> Counter[BundleVersion]:
    """Return how many of the environments' agents run each version, in the ``_MOST_BUNDLES`` most frequent bundles."""
    counted = PulseCount.objects.filter(environment__in=environments).exclude(running_bundle_hash=None).order_by()
    summed = counted.values_list("running_bundle_hash").annotate(agents=Sum("count")).filter(agents__gt=0)
    agents = dict(summed.order_by("-agents")[:_MOST_BUNDLES])
    found = Counter[BundleVersion]()
    for bundle_hash, version in versions_of(environments, agents).items():
        found[version] += agents[bundle_hash]
    return found
