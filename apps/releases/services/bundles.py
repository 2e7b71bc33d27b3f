"""Config bundles: create them, and bar and clear their configurations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from django.db import transaction

from apps.pipelines.models import Version
from apps.releases.models import ConfigBundle, KnownBad
from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from byteor_cloud.compiled import CompiledQuery
from byteor_cloud.engine.allowlist import check_program, parse_url_prefix
from byteor_cloud.engine.compiler import SIDE_EFFECTS, decode, split_op
from byteor_cloud.engine.configuration import RuntimeConfig
from byteor_cloud.engine.delivery.encoding import canonical, sha256
from byteor_cloud.engine.replay import dataguard
from byteor_cloud.errors import MAX_FIELD_ERRORS, Conflict, FieldError, InvalidInput, child_pointer

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
_ALLOWLIST_ENTRY: dict[str, Callable[[str], object]] = {"http_post": parse_url_prefix, "exec": check_program}
_SECRET = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bbor_(usr|org|enr|agt)_[0-9A-Za-z]{20,}")


def _find_secrets(value: Any, pointer: str) -> list[FieldError]:
    """Return an error for each text in the configuration that looks like a private key or one of our credentials."""
    found: list[FieldError] = []
    # Keep the path of each container, so that a JSON pointer is only built where a secret is found.
    waiting: list[tuple[Any, _Path]] = [({pointer[1:]: value}, None)]
    while waiting and len(found) <= MAX_FIELD_ERRORS:
        container, path = waiting.pop()
        for key, item in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(item, (dict, list)):
                waiting.append((item, (path, key)))
            elif isinstance(item, str) and _SECRET.search(item):
                detail = 'Looks like a secret. Use {"secret_ref": "NAME"}, which the agent resolves on its host.'
                found.append(FieldError(_pointer((path, key)), "secret", detail))
    return found


type _Path = tuple[_Path, str | int] | None


def _pointer(path: _Path) -> str:
    parts: list[str | int] = []
    while path is not None:
        path, part = path
        parts.append(part)
    pointer = ""
    for part in reversed(parts):
        pointer = child_pointer(pointer, part)
    return pointer


def _stage_errors(version: Version, stage_config: Mapping[str, Any]) -> list[FieldError]:
    stages = dict(decode(version.spec_kv).stages)
    errors: list[FieldError] = []
    for stage_id, params in stage_config.items():
        pointer = child_pointer("/stage_config", stage_id)
        if len(errors) > MAX_FIELD_ERRORS:
            break
        if stage_id not in stages:
            known = ", ".join(sorted(stages)[:20]) or "none"
            errors.append(FieldError(pointer, "unknown_stage", f"The version has no such stage. Its stages: {known}."))
        elif not isinstance(params, dict):
            errors.append(FieldError(pointer, "invalid", "Must be an object."))
        elif split_op(stages[stage_id])[0].startswith("dataguard_"):
            found = dataguard.check_params(stages[stage_id], params)
            errors += [FieldError(pointer + e.pointer, e.code, e.detail) for e in found]
        elif (kind := split_op(stages[stage_id])[0]) in SIDE_EFFECTS and params.get("allowlist") is not None:
            errors += _allowlist_errors(kind, params["allowlist"], child_pointer(pointer, "allowlist"))
    return errors


def _allowlist_errors(kind: str, entries: Any, pointer: str) -> list[FieldError]:
    """Return the errors of an allowlist, which would otherwise only be found when a replay refuses everything."""
    if not isinstance(entries, list):
        return [FieldError(pointer, "invalid", "Must be a list.")]
    errors = []
    for index, entry in enumerate(entries):
        try:
            _ALLOWLIST_ENTRY[kind](entry if isinstance(entry, str) else "")
        except ValueError as error:
            errors.append(FieldError(f"{pointer}/{index}", "invalid", f"The entry {error}."))
    return errors


def check_configuration(
    version: Version,
    *,
    tuning_profile: str = "default",
    wait: str | None = None,
    stage_config: Mapping[str, Any] | None = None,
    adapters: Mapping[str, Any] | None = None,
    env: Mapping[str, Any] | None = None,
    snapshot: Mapping[str, Any] | None = None,
) -> RuntimeConfig:
    """Return the runtime configuration of a version, completed by the defaults. Raises InvalidInput with all errors."""
    config = RuntimeConfig(
        tuning_profile=tuning_profile,
        wait=wait or WAIT_BY_PROFILE[tuning_profile],
        stage_config=dict(stage_config or {}),
        adapters=dict(adapters or {}),
        env=dict(env or {}),
        snapshot=dict(snapshot or {"enabled": False}),
    )
    errors = [
        *_stage_errors(version, config.stage_config),
        *_find_secrets(config.stage_config, "/stage_config"),
        *_find_secrets(config.adapters, "/adapters"),
        *_find_secrets(config.env, "/env"),
    ]
    if errors:
        raise InvalidInput("; ".join(e.detail for e in errors[:3]), errors=errors)
    return config


@transaction.atomic
def create_config_bundle(
    *, environment: Environment, name: str, version: Version, actor: Actor, **configuration: Any
) -> ConfigBundle:
    """Create a config bundle of a version and its runtime configuration, the arguments of ``check_configuration``.

    Raises InvalidInput with all errors.
    """
    config = check_configuration(version, **configuration)
    ops = {split_op(op)[0] for _, op in decode(version.spec_kv).stages}
    capabilities = sorted({"deploy", *(f"side_effect:{op}" for op in ops & SIDE_EFFECTS)})
    hashed = {"spec_hash": version.spec_hash, **config.document(), "required_capabilities": capabilities}
    try:
        config_hash = sha256(canonical(hashed))
    except ValueError as error:
        raise InvalidInput(f"The configuration cannot be written as canonical JSON: {error}") from None
    bundle = ConfigBundle.objects.create(
        environment=environment,
        name=name,
        version=version,
        required_capabilities=capabilities,
        config_hash=config_hash,
        created_by=actor.display,
        **config.document(),
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


def is_known_bad(environment_id: UUID, config_hash: str) -> bool:
    """Return whether the configuration is known bad in the environment."""
    return _known_bad.first(environment_id, config_hash) is not None


def mark_known_bad(environment: Environment, config_hash: str, *, reason: str, actor: Actor) -> None:
    """Mark a configuration as known bad, in the transaction that found it bad."""
    _, is_new = KnownBad.objects.get_or_create(
        environment=environment, config_hash=config_hash, defaults={"reason": reason[:500]}
    )
    if is_new:
        audit.record(
            "config.bar",
            actor=actor,
            scope=environment,
            resource=("config", config_hash),
            changes={"reason": [None, reason]},
        )


@transaction.atomic
def clear_known_bad(bundle: ConfigBundle, *, reason: str, actor: Actor) -> None:
    """Allow a known bad configuration to be deployed again. Raises Conflict if it is not known bad."""
    deleted, _ = KnownBad.objects.filter(environment=bundle.environment, config_hash=bundle.config_hash).delete()
    if not deleted:
        raise Conflict("This configuration is not known bad.", code="not_barred")
    audit.record(
        "config.clear",
        actor=actor,
        scope=bundle.environment,
        resource=("config", bundle.config_hash),
        changes={"reason": [None, reason]},
    )
