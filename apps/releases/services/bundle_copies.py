"""Copy config bundles, with their versions, from one environment of a project to another."""

from __future__ import annotations

from uuid import UUID

from django.db import connection, transaction

from apps.pipelines.services.versions import find_or_copy_version
from apps.releases.models import ConfigBundle
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.services import audit
from apps.tenancy.services.state import lock_row
from byteor_cloud.errors import Conflict, InvalidInput, NotFound

MAX_MISSING = 1_000  # the maximum number of missing secrets in a response
_COPIED = (
    "name", "tuning_profile", "wait", "stage_config", "adapters", "env", "snapshot", "required_capabilities",
    "config_hash",
)  # fmt: skip
# The function call is the expression of the index ``releases_configbundle_secrets``.
_UNKNOWN = """
SELECT secret FROM unnest(%s::text[]) AS secret
WHERE NOT EXISTS (
    SELECT FROM releases_configbundle
    WHERE releases_secret_keys(environment_id, env) @> ARRAY[%s || ':' || secret] AND id <> %s
)
ORDER BY secret COLLATE "C" LIMIT %s
"""


@transaction.atomic
def copy_config_bundle(
    *, environment: Environment, from_config_bundle_id: UUID, actor: Actor
) -> tuple[ConfigBundle, bool]:
    """Copy a config bundle from another environment of the project. Returns the copy and True.

    The copy has the same name and config hash. Its version is the newest one in ``environment`` with the same pipeline
    and spec hash, or a new copy of the original version. If ``environment`` already has a config bundle with this name
    and config hash, returns that config bundle and False.

    Raises NotFound if the project has no such config bundle, InvalidInput if it belongs to ``environment``, and
    Conflict if ``environment`` has a config bundle with this name and another config hash. A configuration that is
    known bad in ``environment`` is copied as well, because it cannot be deployed there until it is cleared.
    """
    lock_row(environment)
    source = ConfigBundle.objects.filter(
        pk=from_config_bundle_id, environment__project=environment.project, environment__deleted_at=None
    ).first()
    if source is None:
        raise NotFound("There is no such config bundle in this project.")
    if source.environment_id == environment.pk:
        detail = (
            "The config bundle belongs to this environment. Send the id of one in another environment of the project."
        )
        raise InvalidInput.at("/from_config_bundle_id", detail, code="same_environment")
    same_name = ConfigBundle.objects.filter(environment=environment, name=source.name)
    existing = same_name.only("name", "config_hash", "environment", "version").first()
    if existing is not None and existing.config_hash == source.config_hash:
        return existing, False
    if existing is not None:
        raise Conflict(
            f"This environment has a config bundle {source.name} with another configuration. Copy the version instead, "
            "and create a config bundle with another name.",
            code="name_taken",
        )
    version = find_or_copy_version(environment=environment, from_version_id=source.version_id, actor=actor)
    bundle = ConfigBundle.objects.create(
        environment=environment,
        version=version,
        origin_id=source.pk,
        created_by=actor.display,
        **{field: getattr(source, field) for field in _COPIED},
    )
    audit.record(
        "config_bundle.create",
        actor=actor,
        scope=environment,
        resource=("config_bundle", bundle.pk),
        changes={
            "name": [None, bundle.name],
            "config_hash": [None, bundle.config_hash],
            "origin": [None, str(source.pk)],
        },
    )
    return bundle, True


def find_missing_secrets(bundle: ConfigBundle) -> list[str]:
    """Return the sorted names of secrets that a copy refers to, but no other config bundle of its environment does.

    Returns at most ``MAX_MISSING`` names, and none if the config bundle is not a copy.
    """
    if bundle.origin_id is None:
        return []
    names = {value["secret_ref"] for value in bundle.env.values() if isinstance(value, dict)}
    if not names:
        return []
    with connection.cursor() as cursor:
        cursor.execute(_UNKNOWN, [sorted(names), str(bundle.environment_id), bundle.pk, MAX_MISSING])
        return [name for (name,) in cursor.fetchall()]
