"""Create and inspect config bundles, and mark and clear known bad configurations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import BigIntegerField, F, Func, TextField
from django.db.models.functions import Cast

from apps.pipelines.models import Version
from apps.releases.models import ConfigBundle, FixtureRevision, KnownBad
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.services import audit
from byteor.engine.configuration import RuntimeConfig
from byteor_cloud.computing.compute import Compute, here
from byteor_cloud.computing.configuration_checks import ConfigWarning, check_runtime_config, find_warnings
from byteor_cloud.database.compiled import CompiledQuery
from byteor_cloud.errors import Conflict, InvalidInput

_known_bad = CompiledQuery(
    lambda environment_id, config_hash: KnownBad.objects.filter(
        environment_id=environment_id, config_hash=config_hash
    ).only("pk"),
    UUID,
    str,
)

WAIT_BY_PROFILE = {"default": "backoff", "low-latency": "spin", "isolated-core": "spin"}
ADAPTER_KINDS = [
    "file", "http", "grpc", "websocket", "kafka", "nats", "redis_streams", "rabbitmq_streams", "s3", "postgresql",
]  # fmt: skip


_TAR_RECORD = 10_240  # bytes; the size of a tar is a multiple of this
_OTHER_BYTES = 8_192  # bytes; the approximate size of a deploy bundle's manifest, keys, credential and headers


@dataclass(frozen=True, slots=True)
class NewConfiguration:
    """A checked runtime configuration, with the hash and the capabilities that its config bundle will have."""

    config: RuntimeConfig
    config_hash: str
    capabilities: list[str]


def check_configuration(
    version: Version,
    *,
    tuning_profile: str = "default",
    wait: str | None = None,
    stage_config: Mapping[str, Any] | None = None,
    adapters: Mapping[str, Any] | None = None,
    env: Mapping[str, Any] | None = None,
    snapshot: Mapping[str, Any] | None = None,
    compute: Compute = here,
) -> NewConfiguration:
    """Check a version's runtime configuration and fill in the defaults. Raises InvalidInput."""
    config = RuntimeConfig(
        tuning_profile=tuning_profile,
        wait=wait or WAIT_BY_PROFILE[tuning_profile],
        stage_config=dict(stage_config or {}),
        adapters=dict(adapters or {}),
        env=dict(env or {}),
        snapshot=dict(snapshot or {"enabled": False}),
    )
    checked = compute(check_runtime_config, dict(version.stages), version.spec_hash, config)
    if checked.detail is not None:
        raise InvalidInput(checked.detail, errors=checked.errors)
    return NewConfiguration(config, checked.config_hash, checked.capabilities)


@transaction.atomic
def create_config_bundle(
    *,
    environment: Environment,
    name: str,
    version: Version,
    actor: Actor,
    checked: NewConfiguration | None = None,
    **configuration: Any,
) -> ConfigBundle:
    """Create a config bundle. Raises InvalidInput for a wrong configuration, or IntegrityError for a taken name.

    ``configuration`` has the arguments of ``check_configuration``. A caller that has already called that function
    passes its result as ``checked``, because checking a large configuration here would prolong the transaction.
    """
    new = checked or check_configuration(version, **configuration)
    bundle = ConfigBundle.objects.create(
        environment=environment,
        name=name,
        version=version,
        required_capabilities=new.capabilities,
        config_hash=new.config_hash,
        created_by=actor.display,
        **new.config.document(),
    )
    audit.record(
        "config_bundle.create",
        actor=actor,
        scope=environment,
        resource=("config_bundle", bundle.pk),
        changes={"name": [None, name], "config_hash": [None, bundle.config_hash]},
    )
    return bundle


def runtime_config(bundle: ConfigBundle) -> RuntimeConfig:
    """Return the bundle's configuration, which becomes ``runtime_config.json`` in the deploy bundle."""
    return RuntimeConfig(
        bundle.tuning_profile, bundle.wait, bundle.stage_config, bundle.adapters, bundle.env, bundle.snapshot
    )


def estimate_size(bundle: ConfigBundle) -> int:
    """Return the approximate size of the deploy bundle in bytes, without loading its files from the database."""
    files = ("version__spec_kv", "stage_config", "adapters", "env", "snapshot")
    lengths = [Func(Cast(each, TextField()), function="octet_length", output_field=BigIntegerField()) for each in files]
    content: int = sum(ConfigBundle.objects.values_list(*lengths).get(pk=bundle.pk))
    return _TAR_RECORD * math.ceil((content + _OTHER_BYTES) / _TAR_RECORD)


def warnings_of(bundle: ConfigBundle) -> list[ConfigWarning]:
    """Return warnings about settings of the bundle that are permitted but probably unintended."""
    return find_warnings(bundle.version.stages, bundle.stage_config)


def is_known_bad(environment_id: UUID, config_hash: str) -> bool:
    """Return whether the configuration is known bad in the environment."""
    return _known_bad.first(environment_id, config_hash) is not None


def mark_known_bad(environment: Environment, config_hash: str, *, reason: str, actor: Actor) -> None:
    """Mark a configuration as known bad, in the caller's transaction. An earlier mark keeps its reason.

    Golden fixtures then no longer expect the configuration's result in addition to their golden result. This counts as
    a change to the fixtures, so that earlier regressions are outdated.
    """
    _, is_new = KnownBad.objects.get_or_create(
        environment=environment, config_hash=config_hash, defaults={"reason": reason[:500]}
    )
    if is_new:
        _outdate_regressions(environment, config_hash)
        audit.record(
            "config.bar",
            actor=actor,
            scope=environment,
            resource=("config", config_hash),
            changes={"reason": [None, reason]},
        )


@transaction.atomic
def clear_known_bad(bundle: ConfigBundle, *, reason: str, actor: Actor) -> None:
    """Allow a known bad configuration to be deployed again. Raises Conflict if it is not known bad.

    Golden fixtures to which the configuration's result was added then expect it again. This also outdates earlier
    regressions.
    """
    deleted, _ = KnownBad.objects.filter(environment=bundle.environment, config_hash=bundle.config_hash).delete()
    if not deleted:
        raise Conflict("This configuration is not known bad.", code="not_barred")
    _outdate_regressions(bundle.environment, bundle.config_hash)
    audit.record(
        "config.clear",
        actor=actor,
        scope=bundle.environment,
        resource=("config", bundle.config_hash),
        changes={"reason": [None, reason]},
    )


def _outdate_regressions(environment: Environment, config_hash: str) -> None:
    """Count a change to the fixtures of the pipelines that have this configuration."""
    pipelines = ConfigBundle.objects.filter(environment=environment, config_hash=config_hash)
    FixtureRevision.objects.filter(environment=environment, pipeline__in=pipelines.values("version__name")).update(
        revision=F("revision") + 1
    )
