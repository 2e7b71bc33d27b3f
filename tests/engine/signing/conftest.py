from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from byteor.engine.canonical import Json, sha256
from byteor.engine.signing import credential, dsse, keys
from byteor.engine.signing.bundle import BuiltBundle, ManifestFields, build_bundle
from byteor.engine.signing.keys import KeySet, KeyStatus, PublicKey

MADE = datetime(2026, 10, 1, 8, 0, tzinfo=UTC)
RETIRED = datetime(2026, 10, 10, 8, 0, tzinfo=UTC)
APPROVED = datetime(2026, 10, 20, 8, 0, 0, 250_000, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    """An organization with an active, a retiring and a retired key, and an approved prod deployment of one spec."""

    active: bytes = bytes(range(32))
    retiring: bytes = bytes(range(1, 33))
    retired: bytes = bytes(range(2, 34))
    stranger: bytes = bytes(range(3, 35))
    environment: str = "environment-1"
    spec_kv: bytes = b"spec.v=1\nspec.model=single_ring\nspec.name=quotes\n"
    config_hash: str = sha256(b"config")
    runtime_config: Json = field(default_factory=lambda: {"wait": "spin", "env": {}, "tuning_profile": "default"})

    @property
    def keyset(self) -> KeySet:
        return KeySet(
            (
                PublicKey(keys.public_key(self.active), KeyStatus.ACTIVE, MADE),
                PublicKey(keys.public_key(self.retiring), KeyStatus.RETIRING, MADE),
                PublicKey(keys.public_key(self.retired), KeyStatus.RETIRED, MADE, RETIRED),
            )
        )

    def about(self, **changes: Any) -> ManifestFields:
        about = ManifestFields(
            org_id="org-1",
            project_id="project-1",
            environment_id=self.environment,
            deployment_id="deployment-1",
            version_id="version-1",
            config_bundle_id="config-1",
            posture="prod",
            spec_hash=sha256(self.spec_kv),
            config_hash=self.config_hash,
            capabilities=("deploy",),
            created_at=APPROVED - timedelta(minutes=5),
            approved_at=APPROVED,
        )
        return replace(about, **changes)

    def credential(self, **changes: Any) -> str:
        claims: dict[str, Any] = {
            "private_key": self.active,
            "org_id": "org-1",
            "project_id": "project-1",
            "environment_id": self.environment,
            "environment_posture": "prod",
            "spec_hash": sha256(self.spec_kv),
            "capabilities": ["deploy"],
            "issued_at": APPROVED,
            "expires_at": APPROVED + timedelta(hours=1),
            "issued_by": "ada@example.com",
            "approval_id": "approval-1",
        }
        return credential.issue(**claims | changes)

    def bundle(self, *, approval: str | None = None, **changes: Any) -> BuiltBundle:
        about = self.about(**changes)
        if about.approved_at is not None:
            approval = approval or self.credential()
        return build_bundle(about, self.spec_kv, self.runtime_config, approval, self.keyset)

    def envelope(self, built: BuiltBundle, key: bytes | None = None) -> Json:
        return dsse.sign_envelope(built.bundle_hash, built.manifest, key or self.active)


@pytest.fixture(scope="session")
def world() -> World:
    return World()
