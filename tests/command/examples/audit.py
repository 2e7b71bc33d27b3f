"""Invocations of ``byteor audit`` and ``byteor usage``."""

from __future__ import annotations

from pathlib import Path

from apps.tenancy.models import Membership, OrganizationQuotas
from apps.tenancy.permissions import Role
from apps.tenancy.services import ledger
from tests.worlds import World


def examples(world: World, folder: Path) -> dict[str, list[str]]:
    """Seal the world's events, make the operator an administrator, set a quota, and return arguments by command."""
    Membership.objects.filter(user=world.operator.user).update(role=Role.ORG_ADMIN)
    ledger.seal_all()
    OrganizationQuotas.objects.create(organization=world.organization, agents=10)
    return {"audit list": [], "audit export": ["-o", str(folder / "ledger.ndjson")], "usage": []}
