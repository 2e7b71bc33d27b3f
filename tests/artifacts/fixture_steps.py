"""Steps of tests about fixtures and regressions: config bundles of a pipeline that redacts cards, and its captures."""

from __future__ import annotations

from typing import Any

from apps.artifacts.models import Artifact, Fixture
from apps.artifacts.services import fixtures
from apps.pipelines.models import Version
from apps.releases.models import ConfigBundle
from tests.artifacts.incidents import incident, ingested, journal
from tests.artifacts.kept import CHECK, MASK, configured
from tests.worlds import World

RECORDS = [
    b'{"id":1,"card":"1234567890"}',
    b'{"id":2,"card":"1111222233"}',
    b'{"no":"id"}',
    b'{"id":4,"card":"0987654321"}',
]
STRICT = {"schema": {"type": "object", "required": ["id"]}}


def bundle(world: World, name: str, check: Any = CHECK, redact: Any = MASK) -> ConfigBundle:
    """Create a config bundle of the first version in ``dev``. If there is no version yet, one is created."""
    return configured(world, name, Version.objects.filter(environment=world.dev).first(), check=check, redact=redact)


def capture(world: World, made: ConfigBundle, records: list[bytes] = RECORDS) -> Artifact:
    """Ingest a capture of an agent that ran the config bundle."""
    config = dict(made.stage_config)
    return ingested(world, incident(made.version.spec_kv, stage_config=config, quotes_in=journal(records)))


def kept(world: World, artifact: Artifact, name: str = "cards", **options: Any) -> Fixture:
    """Keep the capture as a fixture."""
    return fixtures.create(artifact, environment=world.dev, name=name, actor=world.operator.actor, **options)


def code(response: Any) -> tuple[int, str, str | None]:
    """Return the status of a refusal, and the code and the pointer of its first error.

    If it lists no errors, the code is that of the problem, and the pointer is None.
    """
    body = response.json()
    errors = body.get("errors")
    kind = errors[0]["code"] if errors else body["type"].rpartition(":")[2]
    return response.status_code, kind, errors[0]["pointer"] if errors else None
