"""Tests of ``byteor audit`` and ``byteor usage``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from apps.tenancy.models import AuditEvent, Quota
from apps.tenancy.services import ledger, signing_keys
from apps.tenancy.services.quotas import set_quotas
from byteor.client import ConnectionFailed
from byteor.client.runtime import Connection
from byteor.command import audit
from byteor.command.output import size_text
from byteor.engine.canonical import canonical
from tests.command.conftest import Terminal
from tests.command.processes import environment, run
from tests.worlds import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(terminal: Terminal, world: World) -> Terminal:
    """Switch the terminal to an administrator, and return it."""
    terminal.use(world.admin.api.token or "", organization="acme", project="trading", environment="dev")
    return terminal


def actions(terminal: Terminal, *arguments: str) -> list[str]:
    """Return the actions that ``audit list`` prints, newest first."""
    return [each["action"] for each in terminal("audit", "list", *arguments, "--json", "action").json]


def test_events_are_filtered(admin: Terminal, world: World) -> None:
    world.version(world.staging)
    key = admin("api", "POST", "/api/v1/orgs/{org}/api-keys", "-d", '{"name": "ci", "role": "operator"}').json
    promoted = AuditEvent.objects.get(action="version.create")

    assert actions(admin)[0] == "api_key.create"
    assert actions(admin, "--actor", world.operator.user.email)[:2] == ["version.create", "draft.create"]
    assert actions(admin, "--action", "version.create", "--outcome", "success") == ["version.create"]
    assert actions(admin, "--outcome", "error") == []
    assert actions(admin, "--kind", "version", "--resource", promoted.resource_id) == ["version.create"]
    assert actions(admin, "--in", "environment", "--env", "staging")[0] == "version.create"
    assert "version.create" not in actions(admin, "--in", "environment")
    assert actions(admin, "--actor", "ci") == actions(admin, "--actor", key["id"]) == []
    assert len(actions(admin, "--limit", "2")) == 2


def test_events_are_filtered_by_age_and_time(admin: Terminal, world: World) -> None:
    now = datetime.now(UTC)
    later = (now + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")

    assert actions(admin, "--since", "2h") == actions(admin, "--until", later) == actions(admin)
    assert actions(admin, "--until", "7d") == actions(admin, "--since", later) == []


@pytest.mark.parametrize("moment", ["yesterday", "5", "2 h", "99999999999w", "999999w", "2026-13-01"])
def test_invalid_times_are_usage_errors(terminal: Terminal, moment: str) -> None:
    found = terminal("audit", "list", "--since", moment)

    assert (found.code, found.out) == (2, "")
    assert f"{moment} is not a time. Examples: 30m, 2h" in found.err


def test_unknown_actors_and_reversed_times_are_refused(admin: Terminal, terminal: Terminal) -> None:
    stranger, key = admin("audit", "list", "--actor", "nobody@x.example"), admin("audit", "list", "--actor", "no-key")
    reversed_times = admin("audit", "list", "--since", "1h", "--until", "2h")

    assert (stranger.code, key.code, reversed_times.code) == (1, 1, 2)
    assert (
        stranger.err == "byteor: No member has the e-mail address nobody@x.example. For a former member, use the id.\n"
    )
    assert key.err == "byteor: No API key matches no-key.\n"
    assert reversed_times.err == "byteor: --since must be before --until.\n"


class Pauses:
    """Runs one step at each pause between two polls. At the pause after the last step, presses Ctrl-C."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps = iter(steps)

    def __call__(self, _seconds: float) -> None:
        try:
            step = next(self._steps)
        except StopIteration:
            raise KeyboardInterrupt from None
        step()


def test_followed_events_are_printed_once_despite_lost_connection_and_late_commit(
    admin: Terminal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Connection.send

    def lose_connection() -> None:
        def fail(*_: Any, **__: Any) -> Any:
            raise ConnectionFailed("connection refused")

        monkeypatch.setattr(Connection, "send", fail)

    def restore_connection() -> None:
        monkeypatch.setattr(Connection, "send", send)
        world.environment("dev", "third")

    def commit_late() -> None:
        """Create an event whose time is earlier than the newest one's, as if its transaction had taken longer."""
        newest = AuditEvent.objects.latest("id")
        AuditEvent.objects.create(
            organization=world.organization, timestamp=newest.timestamp - timedelta(seconds=20), action="late.commit",
            resource_kind="organization", resource_id=str(world.organization.pk), outcome="success",
            actor_kind="system", actor_id="test", actor_display="test",
        )  # fmt: skip

    monkeypatch.setattr(
        audit,
        "sleep",
        Pauses(
            lambda: None,
            lambda: [world.environment("dev", name) for name in ("first", "second")],
            lose_connection,
            lambda: None,
            restore_connection,
            commit_late,
            lambda: None,
        ),
    )

    found = admin("audit", "follow", "--json", "action,changes")

    assert found.code == 0
    printed = [json.loads(line) for line in found.out.splitlines()]
    assert [each["action"] for each in printed] == ["environment.create"] * 3 + ["late.commit"]
    assert [each["changes"]["name"][1] for each in printed[:3]] == ["first", "second", "third"]
    assert found.err == "A request failed: connection refused. Retrying.\n" * 2


def test_follow_begins_with_events_since_given_time(
    admin: Terminal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "sleep", Pauses(lambda: None))

    from_now = admin("audit", "follow")
    monkeypatch.setattr(audit, "sleep", Pauses(lambda: None))
    since = admin("audit", "follow", "--since", "1h", "--kind", "environment")

    assert (from_now.code, from_now.out, since.code) == (0, "", 0)
    environments = AuditEvent.objects.filter(resource_kind="environment").order_by("id")
    assert [line.split("  ")[-1].split()[-1] for line in since.out.splitlines()] == [
        each.resource_id for each in environments
    ]
    assert since.out.splitlines()[0].endswith(
        f" UTC  success  admin@acme.example  environment.create  environment {world.dev.pk}"
    )


def test_follow_exits_1_without_message_when_its_output_is_closed(admin: Terminal, tmp_path: Path) -> None:
    command = "byteor audit follow --since 1h --json action | head -n 1; echo ${PIPESTATUS[0]}"
    found = run("bash", "-c", command, env=environment(tmp_path))

    assert (found.stdout, found.stderr) == ('{"action": "organization.create"}\n1\n', "")


def test_export_is_verified_offline(admin: Terminal, world: World, tmp_path: Path) -> None:
    ledger.seal_all()
    file, keys = tmp_path / "ledger.ndjson", tmp_path / "keys.json"
    keys.write_bytes(canonical(signing_keys.key_set(world.organization.pk).document()))

    exported = admin("audit", "export", "-o", str(file), "--json").json
    verified = admin("verify", "ledger", str(file), "--keys", str(keys))

    events = AuditEvent.objects.filter(organization=world.organization).count()
    assert exported == {"file": str(file), "size_bytes": file.stat().st_size, "after_seq": 0, "seq": events}
    assert verified.code == 0
    assert verified.out.startswith("PROVEN\n")
    assert f"{events}, from seq 1 to {events}\n" in verified.out

    world.environment("dev", "later")
    ledger.seal_all()
    rest = tmp_path / "rest.ndjson"
    assert admin("audit", "export", "-o", str(rest), "--after-seq", str(events)) == (
        0,
        f"Exported 1 event, sequence number {events + 1}, to {rest}\n",
        f"To export later events, use --after-seq {events + 1}.\n",
    )
    assert admin("verify", "ledger", str(file), str(rest), "--keys", str(keys)).code == 0


def test_incomplete_export_neither_replaces_nor_creates_file(
    admin: Terminal, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.seal_all()
    whole = ledger.export_lines
    monkeypatch.setattr(ledger, "export_lines", lambda *args, **options: list(whole(*args, **options))[:-1])
    old = tmp_path / "old.ndjson"
    old.write_text("an earlier export")

    for file in (old, tmp_path / "new.ndjson"):
        found = admin("audit", "export", "-o", str(file))
        assert (found.code, found.out) == (1, "")
        assert found.err == "byteor: The export is incomplete: it has no checkpoint. Run the command again.\n"

    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["old.ndjson"]
    assert old.read_text() == "an earlier export"
    nowhere = admin("audit", "export", "-o", str(tmp_path / "no" / "where"))
    assert (nowhere.code, nowhere.err.count("\n")) == (1, 1)
    assert "No such file or directory" in nowhere.err


def test_operators_may_not_read_events(terminal: Terminal) -> None:
    for arguments in (["list"], ["follow"], ["export", "-o", os.devnull + "x"]):
        found = terminal("audit", *arguments)
        assert (found.code, found.out, found.err.count("\n")) == (1, "", 1)
        assert "(request " in found.err


def test_usage_shows_quotas(terminal: Terminal, world: World) -> None:
    limits = {Quota.AGENTS: 4, Quota.STORED_BYTES: 3 * 1024**3, Quota.DRAFTS: 0}
    set_quotas(world.organization, limits, actor=world.admin.actor)
    world.agent(name="one")

    found = terminal("usage")

    assert found.code == 0
    assert found.out.splitlines()[:5] == [
        "QUOTA           USED      LIMIT  SHARE",
        "Agents             1          4    25%",
        "Stored data      0 B    3.0 GiB     0%",
        "Captures today     0  unlimited      -",
        "Drafts             0          0     0%",
    ]
    assert terminal("usage", "--json", "limits").json["limits"]["agents"] == 4


@pytest.mark.parametrize(
    ("size", "text"), [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 39, "1.5 TiB")]
)
def test_sizes_have_units_and_missing_size_is_dash(size: int | None, text: str) -> None:
    assert size_text(size) == text
