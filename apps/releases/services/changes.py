"""The changes in the spec and the configuration from a deployment to the one that replaces it."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from apps.releases.models import ConfigBundle, Deployment
from apps.releases.services.bundles import runtime_config
from byteor.engine.compiler import SpecDiff
from byteor.engine.configuration import ConfigChange, diff_configurations
from byteor_cloud.computing.computations import diff_kv
from byteor_cloud.computing.compute import Compute, here


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes from the deployment ``base`` to the deployment that replaces it.

    If no deployment is replaced, ``base`` and ``spec`` are None, and ``config`` lists every value as added. In the
    preview of a new config bundle, ``spec`` is None.
    """

    base: Deployment | None
    spec: SpecDiff | None
    config: tuple[ConfigChange, ...]


def find_changes(deployment: Deployment, *, compute: Compute = here) -> Changes:
    """Compare the deployment with its base."""
    return compare(find_base(deployment), deployment.config_bundle, compute=compute)


def compare(base: Deployment | None, new: ConfigBundle, *, compute: Compute) -> Changes:
    """Compare a config bundle with the deployment that it would replace."""
    if base is None:
        return Changes(None, None, compute(diff_configurations, None, runtime_config(new)))
    old = base.config_bundle
    return Changes(
        base,
        compute(diff_kv, old.version.spec_kv, new.version.spec_kv),
        compute(diff_configurations, runtime_config(old), runtime_config(new)),
    )


def find_base(deployment: Deployment) -> Deployment | None:
    """Return the deployment with which this one is compared, or None.

    The base is the first of these deployments that exists and is not this one: the one that this one superseded, the
    one that this one's rollback restores (if a rollback was started), and the pipeline's current deployment in the
    environment.
    """
    return find_bases(deployment).first()


def find_bases(deployment: Deployment) -> QuerySet[Deployment]:
    """Return the deployment of ``find_base`` as a queryset, which is empty if there is none."""
    is_other = ~Q(pk=deployment.pk)
    kinds = [Q(is_other, superseded_by=deployment)]
    kinds += [Q(is_other, pk=deployment.restores_id)] if deployment.restores_id is not None else []
    kinds.append(is_other & _is_current(deployment.environment_id, deployment.pipeline))
    # Each subquery finds one key with an index, and the later ones are needed only if the earlier ones find nothing.
    best = [Subquery(Deployment.objects.filter(kind).order_by("-activated_at").values("pk")[:1]) for kind in kinds]
    return _compared().filter(pk=Coalesce(*best))


def find_current(environment_id: UUID, pipeline: str) -> Deployment | None:
    """Return the pipeline's current deployment in the environment, or None."""
    return _compared().filter(_is_current(environment_id, pipeline)).first()


def _is_current(environment_id: UUID, pipeline: str) -> Q:
    return Q(environment=environment_id, pipeline=pipeline, is_current=True)


def _compared() -> QuerySet[Deployment]:
    """Return deployments with the columns that a comparison reads."""
    unread = ("target", "manifest", "signing_keys", "explain", "config_bundle__version__plan")
    rows = Deployment.objects.select_related("config_bundle__version")
    return rows.defer(*unread, "config_bundle__version__spec")
