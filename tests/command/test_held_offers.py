"""Tests of ``byteor held-offers``."""

from __future__ import annotations

import pytest
from django.utils import timezone

from apps.fleet.models import Assignment
from apps.tenancy.models import AuditEvent
from tests.command.conftest import Terminal
from tests.releases import stories
from tests.resources import Place
from tests.resources.environments import holding
from tests.worlds import World

pytestmark = pytest.mark.django_db


def held() -> int:
    return Assignment.objects.exclude(held_backup_at=None).count()


def test_held_offers_are_shown_and_resumed(terminal: Terminal, world: World) -> None:
    assert terminal("held-offers", "show") == (0, "No offers are held.\n", "")
    holding(Place(world, world.dev))
    backup_at = Assignment.objects.get(held_backup_at__isnull=False).held_backup_at
    assert backup_at is not None

    shown = terminal("held-offers", "show")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(
        f"Restored from a backup of {backup_at:%Y-%m-%d %H:%M} UTC: the offers to 1 agent are held. It keeps running "
    )
    assert terminal("held-offers", "show", "--json", "agents").json == {"agents": 1}
    unasked = terminal("held-offers", "resume")
    assert (unasked.code, unasked.out, held()) == (2, "", 1)
    assert unasked.err == "byteor: Cannot prompt for confirmation without a terminal. Use --yes to confirm.\n"

    done = terminal("held-offers", "resume", "--reason", "checked", "--yes")
    assert done == (0, "Resumed the offers to 1 agent.\n", "")
    assert held() == 0
    assert AuditEvent.objects.get(action="environment.resume_offers").changes["reason"] == "checked"


def test_resuming_is_refused_without_held_offers_or_permission(terminal: Terminal, world: World) -> None:
    nothing = terminal("held-offers", "resume", "--yes")
    assert (nothing.code, nothing.out) == (1, "")
    assert "held" in nothing.err
    holding(Place(world, world.dev))
    terminal.use(world.viewer.api.token or "", organization="acme", project=world.project.name, environment="dev")

    assert terminal("held-offers", "resume", "--yes").code == 1
    assert held() == 1


def test_explanation_of_held_offer_names_resume_command(terminal: Terminal, world: World) -> None:
    [(agent, _), *_], _, _ = stories.running(world, 2)
    Assignment.objects.update(held_backup_at=timezone.now())

    explained = terminal("agents", "explain", str(agent.pk))

    assert explained.out.endswith("\n\nTo unblock:\n  byteor held-offers resume\n"), explained
