"""Tests of ``byteor artifacts``."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apps.artifacts.models import Artifact, Fixture, Replay
from byteor.client.errors import ConnectionFailed
from byteor.client.resources import Environment
from byteor_cloud.storage import blobs
from tests.artifacts.incidents import PAYLOADS, digest_of, frames, incident, ingested, journal, upload
from tests.command.conftest import Terminal
from tests.worlds import World, plan, run_jobs

pytestmark = pytest.mark.django_db

COPY = plan(stages=[{"id": "copy", "op": "identity"}])
CHECK = {"check": {"schema": {"type": "object", "required": ["id"]}}}
EVERYTHING = list(enumerate(PAYLOADS, 1))


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, run_jobs: Callable[..., int]) -> None:
    """Run the waiting jobs whenever a command would sleep."""
    monkeypatch.setattr("byteor.command.waiting.sleep", lambda _: run_jobs())


@pytest.fixture
def capture(world: World) -> Artifact:
    """Ingest and return a capture whose recorded output has three records. Its pipeline drops the second one."""
    version = world.version()
    return ingested(world, incident(version.spec_kv, stage_config=CHECK, expected=frames(*EVERYTHING)))


def test_capture_is_listed_shown_and_pulled(terminal: Terminal, capture: Artifact, tmp_path: Path) -> None:
    id = str(capture.pk)
    listed = terminal("artifacts", "list", "--kind", "incident_bundle", "--version", "quotes:1")
    assert listed.out.split("\n")[1].split()[-1] == id
    assert "quotes:1" in listed.out
    assert terminal("artifacts", "list", "--status", "rejected").err == "No results.\n"
    assert f"Content hash: {capture.content_hash}\n" in terminal("artifacts", "show", id[-8:]).out

    target = tmp_path / f"{id}.tar.gz"
    assert terminal("artifacts", "pull", id[-8:], "-o", str(tmp_path)).out.startswith(f"Saved {target} (")
    with tarfile.open(fileobj=io.BytesIO(target.read_bytes())) as archive:
        names = archive.getnames()
    assert "journal/quotes_in.bin" in names
    again = terminal("artifacts", "pull", id, "-o", str(tmp_path))
    assert (again.code, again.err) == (2, f"byteor: {target} already exists. Use --force to overwrite it.\n")

    inner = terminal("artifacts", "pull", id, "-o", str(tmp_path), "--file", "journal/quotes_in.bin", "--json", "path")
    assert Path(inner.json["path"]).read_bytes() == journal()
    assert terminal("artifacts", "pull", id, "--file", "no/such").err.startswith("byteor: The artifact has no file")
    assert [each["path"] for each in terminal("artifacts", "files", id, "--json").json] == sorted(names)


def test_damaged_content_is_not_saved(terminal: Terminal, capture: Artifact, tmp_path: Path) -> None:
    Artifact.objects.filter(pk=capture.pk).update(content_hash=other_content())
    before = b"an earlier file"
    (tmp_path / "capture").write_bytes(before)
    Artifact.objects.filter(pk=capture.pk).update(size_bytes=5)

    found = terminal("artifacts", "pull", str(capture.pk), "-o", str(tmp_path / "capture"), "--force")

    assert found.code == 1
    assert "does not have the hash" in found.err
    assert (tmp_path / "capture").read_bytes() == before
    assert [each.name for each in tmp_path.iterdir() if "partial" in each.name] == []


def other_content() -> str:
    """Store bytes under a wrong hash, and return this hash."""
    digest = "sha256:" + "0" * 64
    blobs.put(digest, b"other")
    return digest


def test_records_show_escaped_payloads(terminal: Terminal, world: World) -> None:
    version = world.version(content=COPY)
    payloads = [b'{"id": 1.50}', b"\x1b[31mred\n", b"\xff\x00"]
    artifact = ingested(world, incident(version.spec_kv, quotes_in=journal(payloads)))

    rows = terminal("artifacts", "records", str(artifact.pk)).out.splitlines()

    assert rows[0].split() == ["POSITION", "SEQUENCE", "TIME", "SIZE", "PAYLOAD"]
    assert [row.split(maxsplit=4)[-1] for row in rows[1:]] == ['{"id": 1.50}', r"\x1b[31mred\n", r"\xff\x00"]
    later = terminal("artifacts", "records", str(artifact.pk), "--sequence", "3", "--json", "sequence").json
    assert later == [{"sequence": 3}]
    few = terminal("artifacts", "records", str(artifact.pk), "--limit", "1", "--json", "position")
    assert few.json == [{"position": 0}]
    assert "Results are limited to 1." in few.err
    assert terminal("artifacts", "records", str(artifact.pk), "--after", "1", "--sequence", "1").code == 2


@pytest.mark.usefixtures("jobs")
def test_replay_shows_divergence_and_trace_shows_dropped_record(terminal: Terminal, capture: Artifact) -> None:
    found = terminal("artifacts", "replay", str(capture.pk)[-8:])

    assert found.code == 1
    replay = Replay.objects.get()
    assert found.out.startswith(
        f"Replay {replay.pk} through quotes:1: Diverged at quotes_out, record 2: the record is missing.\n"
    )
    assert "check    3    2        1       0  schema (1)" in found.out
    assert digest_of(EVERYTHING[0], EVERYTHING[2]) in found.out

    assert terminal("artifacts", "trace", str(replay.pk), "2").out == (
        "Record 2 of quotes_in (position 1)\n"
        '  ingress quotes_in  {"no":"id"}\n'
        '  stage decode       {"no":"id"}\n'
        "  stage check        dropped: schema\n"
    )
    assert terminal("artifacts", "trace", str(replay.pk), "9").code == 1
    assert str(replay.pk) in terminal("artifacts", "replays", "--status", "diverged").out


@pytest.mark.usefixtures("jobs")
def test_replay_through_other_version_is_compared_with_earlier_replay(
    terminal: Terminal, world: World, capture: Artifact
) -> None:
    first = terminal("artifacts", "replay", str(capture.pk), "--json", "id").json["id"]
    world.version(content=COPY)

    found = terminal("artifacts", "replay", str(capture.pk), "--version", "quotes:2", "--against", first)

    assert found.code == 1
    assert "Finished without differences from the capture." in found.out
    assert ["egress", "quotes_out", "2", "→", "3"] in [row.split() for row in found.out.splitlines()]
    assert "First difference: quotes_out, record 2: only the second replay has it." in found.out
    second = Replay.objects.order_by("-pk")[0]
    assert terminal("artifacts", "compare", first, first).out == "The results are equal.\n"
    assert terminal("artifacts", "compare", first, str(second.pk), "--json", "equal").json == {"equal": False}


def test_replay_is_pending_after_timeout_and_can_be_canceled(terminal: Terminal, capture: Artifact) -> None:
    found = terminal("artifacts", "replay", str(capture.pk), "--timeout", "0", "--json", "id,status")

    assert (found.code, found.json["status"]) == (8, "queued")
    assert f"`byteor artifacts show-replay {found.json['id']}`" in found.err
    assert terminal("artifacts", "replay", str(capture.pk), "--detach").code == 0
    canceled = terminal("artifacts", "cancel-replay", found.json["id"], "--reason", "Not needed")
    assert canceled.out == f"Canceled replay {found.json['id']}\n"
    assert "Failed: " in terminal("artifacts", "show-replay", found.json["id"]).out


def test_replay_continues_after_command_is_interrupted(
    terminal: Terminal, capture: Artifact, monkeypatch: pytest.MonkeyPatch, run_jobs: Callable[..., int]
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("byteor.command.waiting.sleep", interrupt)

    found = terminal("artifacts", "replay", str(capture.pk))

    replay = Replay.objects.get()
    assert found.code == 130
    assert f"continues on the server. To see the result, run `byteor artifacts show-replay {replay.pk}`." in found.err
    run_jobs()
    replay.refresh_from_db()
    assert replay.status == "diverged"


@pytest.mark.usefixtures("jobs")
def test_command_waits_for_replay_despite_lost_connection(
    terminal: Terminal, capture: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [ConnectionFailed("refused"), ConnectionFailed("refused")]
    get_replay = Environment.get_replay

    def lost(calls: Environment, id: str) -> Any:
        if failures:
            raise failures.pop()
        return get_replay(calls, id)

    monkeypatch.setattr(Environment, "get_replay", lost)

    found = terminal("artifacts", "replay", str(capture.pk), "--json", "status")

    assert found.json == {"status": "diverged"}
    assert found.err == "A request failed: refused. Retrying.\n"


def test_execute_replay_requires_confirmation_and_waits_for_approval(terminal: Terminal, world: World) -> None:
    environment = world.environment("prod", "live", replay_policy="allowed")
    version = world.version(environment, plan(stages=[{"id": "post", "op": "http_post:http://127.0.0.1:9/hook"}]))
    agent, api = world.agent(environment)
    artifact = uploaded(world, api, agent, incident(version.spec_kv))

    unasked = terminal("artifacts", "replay", artifact, "--execute", "--env", "live")
    assert (unasked.code, Replay.objects.count()) == (2, 0)
    found = terminal("artifacts", "replay", artifact, "--execute", "--env", "live", "--yes")

    assert found.code == 8
    assert "Waiting for approval." in found.out
    assert f"`byteor approve {Replay.objects.get().pk}`" in found.err


def uploaded(world: World, api: Any, agent: Any, content: bytes) -> str:
    """Upload an incident bundle, run its ingest, and return the artifact's id."""
    response = upload(api, agent, content, kind="incident_bundle")
    run_jobs()
    return str(response.json()["id"])


@pytest.mark.usefixtures("jobs")
def test_bisect_finds_first_bad_version(terminal: Terminal, world: World) -> None:
    versions = [
        world.version(content=plan(egress=egress, stages=[{"id": f"n{number}", "op": "identity"}]))
        for number, egress in enumerate(["quotes_out"] * 3 + ["elsewhere"] * 2)
    ]
    artifact = ingested(world, incident(versions[0].spec_kv, expected=frames(*EVERYTHING)))

    found = terminal("artifacts", "bisect", str(artifact.pk))

    assert found.code == 0
    assert "quotes:4 is the first bad version. The last good version is quotes:3." in found.out
    assert "+single_ring.egress=elsewhere" in found.out
    good = terminal("artifacts", "bisect", str(artifact.pk), "--good", "quotes:1", "--bad", "quotes:3")
    assert good.code == 1
    assert "The oldest and the newest tested version have the same verdict." in good.out
    assert terminal("artifacts", "bisect", str(artifact.pk), "--good", "quotes:3", "--bad", "quotes:1").code == 1


def test_capture_is_kept_as_fixture(terminal: Terminal, capture: Artifact, world: World) -> None:
    id = str(capture.pk)
    owner = world.reviewer.user.email
    found = terminal("artifacts", "keep", id, "--name", "cards", "--note", "Why", "--owner", owner, "--expires",
                     "2999-01-31")  # fmt: skip
    assert found == (0, "Created fixture cards of pipeline quotes\n", "")
    fixture = Fixture.objects.get()
    assert (fixture.note, fixture.owner) == ("Why", world.reviewer.user)
    assert str(fixture.expires_at) == "2999-01-31 00:00:00+00:00"

    part = terminal("artifacts", "keep", id, "--name", "first two", "--records", "0", "1", "--json", "records")
    assert part.json == {"records": [0, 1]}
    again = terminal("artifacts", "keep", id, "--name", "cards")
    assert (again.code, again.out) == (1, "")
    assert terminal("artifacts", "keep", id, "--name", "x", "--owner", "nobody@acme.example").code == 1
    assert terminal("artifacts", "keep", id, "--name", "x", "--expires", "soon").code == 2
    assert Fixture.objects.count() == 2


def test_viewer_may_list_artifacts_but_not_read_captured_records(
    terminal: Terminal, world: World, capture: Artifact
) -> None:
    terminal.use(str(world.viewer.api.token), organization="acme", project=world.project.name, environment="dev")

    assert str(capture.pk) in terminal("artifacts", "list").out
    for command in ("pull", "records", "files", "replay"):
        refused = terminal("artifacts", command, str(capture.pk))
        assert (refused.code, refused.out) == (1, "")
        assert "(request " in refused.err
