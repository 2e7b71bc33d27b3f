"""The pipelines and versions in the bundles that agents run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Exists, OuterRef, Q

from apps.releases.models import Deployment


@dataclass(frozen=True, slots=True)
class BundleVersion:
    """The version in a bundle: its id, its pipeline and its number."""

    id: UUID
    pipeline: str
    number: int


def runs(pipeline: str | None, number: int | None) -> Q:
    """Return the condition that a pulse's agent runs this pipeline, if given, in this version, if given."""
    built = Deployment.objects.filter(environment=OuterRef("environment"), bundle_hash=OuterRef("running_bundle_hash"))
    if pipeline is not None:
        built = built.filter(pipeline=pipeline)
    if number is not None:
        built = built.filter(config_bundle__version__number=number)
    return Q(Exists(built))


def versions_of(bundle_hashes: Collection[str]) -> dict[str, BundleVersion]:
    """Return the version in each of these bundles, by bundle hash. Bundles of no deployment are left out."""
    built = Deployment.objects.filter(bundle_hash__in=bundle_hashes).values_list(
        "bundle_hash", "config_bundle__version_id", "pipeline", "config_bundle__version__number"
    )
    return {bundle_hash: BundleVersion(*version) for bundle_hash, *version in built}
