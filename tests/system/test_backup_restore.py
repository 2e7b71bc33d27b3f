"""Backups restored elsewhere: agents continue, no earlier action is repeated, and unusable backups are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from byteor_cloud.demo.main_job import ADMIN, AGENTS, REVIEWER, Demo
from byteor_cloud.demo.processes import ApiClient
from tests.object_store import ACCESS_KEY, BUCKET, SECRET_KEY, ObjectStore, object_store
from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import Installation
from tests.system.restore_target import PASSPHRASE, RestoreTarget, refused

__all__ = ["object_store"]
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.write_text(f"{PASSPHRASE}\n")
    return file


@pytest.fixture
def make_target() -> Iterator[Any]:
    made: list[RestoreTarget] = []

    def make(**settings: str) -> RestoreTarget:
        made.append(RestoreTarget(**settings))
        return made[-1]

    yield make
    for each in made:
        each.remove()


def test_restored_installation_continues_from_state_of_backup(
    object_store: ObjectStore, passphrase: Path, tmp_path: Path, make_target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    old = Installation()
    demo = Demo(old.data_dir, old.environment(API_BIND_ADDR=f"127.0.0.1:{old.port}"))
    try:
        demo.serve()
        demo.run_main_job()
        server = demo.processes[0]
        admin = ApiClient(demo.base, demo.sign_in[ADMIN]["token"])
        path = _environment(admin, demo)
        scheduled, credential = _approve_for_later(admin, demo, path)
        backup = old.manage("backup", str(tmp_path / "backup"), "--passphrase-file", str(passphrase))
        assert backup.returncode == 0, backup.stderr
        later_id, later_key = _enroll(admin, demo, path)
        server.terminate()
        assert server.wait(PATIENCE_S) == 0

        # A bucket that contains blobs is refused, because another installation may use it.
        in_bucket = make_target(**object_store.settings)
        stray = object_store.bucket.put_object(Key=f"sha256/ab/{'ab' * 32}", Body=b"stray")
        whole = (tmp_path / "backup", "--passphrase-file", passphrase)
        refused(in_bucket.restore(*whole), f"the bucket {BUCKET} contains blobs")

        # An altered blob stops the restore. The restore can be completed after the blob is repaired.
        blob = sorted((tmp_path / "backup/blobs").rglob("?" * 64))[0]
        content = blob.read_bytes()
        blob.write_bytes(content[:-1] + b"?")
        refused(in_bucket.restore(*whole, "--use-existing-blobs"), f"{blob.name} was altered")
        stray.delete()
        refused(in_bucket.manage("serve", **object_store.settings), "run manage.py restore again")
        blob.write_bytes(content)
        first = in_bucket.restore(*whole)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "approvals revoked (their credentials may have been spent): 1\n" in first.stdout
        assert f"offers held (agents keep running what they run): {len(AGENTS)}\n" in first.stdout
        assert "its output has the same digests" in first.stdout
        assert {each.key.rpartition("/")[2] for each in object_store.bucket.objects.filter(Prefix="sha256/")} == {
            each.name for each in (tmp_path / "backup/blobs").rglob("?" * 64)
        }

        # Back up the installation whose blobs are in the bucket, and restore it with blobs in a folder.
        place = f"s3://{BUCKET}/backups"
        backup = in_bucket.manage("backup", place, "--passphrase-file", str(passphrase), **object_store.settings)
        assert backup.returncode == 0, backup.stderr
        new = make_target()
        store = {"S3_ENDPOINT_URL": object_store.endpoint, "S3_REGION": object_store.settings["S3_REGION"]}
        second = new.restore(place, "--passphrase-file", passphrase, **store)
        assert second.returncode == 0, second.stdout + second.stderr
        new.port, new.base = old.port, old.base
        started = datetime.now(UTC)
        new.serve()

        wait_until(lambda: _all_online(admin, path, since=started))
        agents = _all_online(admin, path, since=started)
        assert [agent["running"]["bundle_hash"] for agent in agents] == [agents[0]["desired"]["bundle_hash"]] * 2
        assert admin("GET", f"{path}/held-offers")["agents"] == len(AGENTS)
        assert _offer(demo) is None
        url = f"{demo.base}/api/v1/agents/{later_id}/deployment"
        unknown = requests.get(url, headers={"Authorization": f"Bearer {later_key}"}, timeout=PATIENCE_S)
        assert unknown.status_code == 401
        wait_until(lambda: _refused(new) == [(later_id, "unknown_agent")])
        found = admin("GET", f"{path}/deployments/{scheduled['id']}")
        assert (found["status"], found["reason"]) == ("failed", "approval_revoked")
        body = {key: scheduled[key] for key in ("config_bundle_id", "target", "strategy", "start_at")}
        again = requests.post(
            f"{demo.base}{path}/deployments", json={**body, "approval": credential},
            headers={"Authorization": f"Bearer {demo.sign_in[ADMIN]['token']}"}, timeout=PATIENCE_S,
        )  # fmt: skip
        assert (again.status_code, again.json()["type"]) == (409, "urn:byteor:problem:approval.revoked")

        assert admin("POST", f"{path}/held-offers/resume", {}) == {"agents": 0, "backup_at": None}
        assert _offer(demo)["bundle_hash"] == agents[0]["running"]["bundle_hash"]
        intact = new.manage("verify_ledger")
        assert intact.returncode == 0, intact.stdout
    finally:
        demo.stop()
        old.remove()


def _enroll(admin: ApiClient, demo: Demo, path: str) -> tuple[str, str]:
    """Enroll another agent. Returns its id and key."""
    token = admin("POST", f"{path}/enrollment-tokens", {})["token"]
    headers = {"Authorization": f"Bearer {token}"}
    made = requests.post(f"{demo.base}{path}/agents", json={"name": "later"}, headers=headers, timeout=PATIENCE_S)
    return made.json()["agent_id"], made.json()["api_key"]


def _environment(admin: ApiClient, demo: Demo) -> str:
    path = f"/api/v1/orgs/{demo.sign_in[ADMIN]['org_id']}/projects"
    path += f"/{admin('GET', path)['results'][0]['id']}/environments"
    return f"{path}/{admin('GET', path)['results'][0]['id']}"


def _approve_for_later(admin: ApiClient, demo: Demo, path: str) -> tuple[Any, str]:
    """Create and approve a deployment for tomorrow, with the replay gate off. Returns the deployment and credential."""
    admin("PUT", path, {"settings": {"replay_gate": "off"}})
    current = next(each for each in admin("GET", f"{path}/deployments")["results"] if each["is_current"])
    start_at = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0).isoformat()
    body = {"config_bundle_id": current["config_bundle_id"], "target": {"all": True}, "start_at": start_at}
    scheduled = admin("POST", f"{path}/deployments", body)
    reviewer = ApiClient(demo.base, demo.sign_in[REVIEWER]["token"])
    decision = {"deployment_id": scheduled["id"], "decision": "approve"}
    return scheduled, reviewer("POST", f"{path}/approvals", decision)["credential"]


def _all_online(admin: ApiClient, path: str, *, since: datetime) -> Any:
    """Return the demo's agents if all have sent a heartbeat since the given time, and otherwise None."""
    agents = admin("GET", f"{path}/agents")["results"]
    seen = [each["last_seen_at"] and datetime.fromisoformat(each["last_seen_at"]) >= since for each in agents]
    return agents if len(agents) == len(AGENTS) and all(seen) else None


def _refused(installation: Installation) -> list[tuple[str, str]]:
    """Return the agents whose keys were refused, with the reasons."""
    listed = installation.manage("refused_agents", "--json")
    assert listed.returncode == 0, listed.stderr
    return [(each["agent_id"], each["reason"]) for each in json.loads(listed.stdout)]


def _offer(demo: Demo) -> Any:
    """Return what the first agent is offered."""
    folder = demo.folder / AGENTS[0]
    agent_id = json.loads((folder / "agent.json").read_text())["agent_id"]
    headers = {"Authorization": f"Bearer {(folder / 'api_key').read_text()}"}
    url = f"{demo.base}/api/v1/agents/{agent_id}/deployment"
    return requests.get(url, headers=headers, timeout=PATIENCE_S).json()["desired"]


def test_unusable_backups_and_wrong_keys_are_refused_and_do_not_prevent_later_restore(
    installation: Installation, passphrase: Path, tmp_path: Path, make_target: Any
) -> None:
    installation.bootstrap()
    source = tmp_path / "backup"
    made = installation.manage("backup", str(source), "--passphrase-file", str(passphrase))
    assert made.returncode == 0, made.stderr
    [name] = [each.name for each in (source / "backups").iterdir()]
    manifest, dump = source / f"backups/{name}/manifest.json", source / f"backups/{name}/database.dump"
    content, dumped = manifest.read_text(), dump.read_bytes()
    target = make_target()
    wrong = tmp_path / "wrong"
    wrong.write_text("not the passphrase")

    def edited(**changes: Any) -> None:
        manifest.write_text(json.dumps({**json.loads(content), **changes}))

    refused(target.restore(source, "--passphrase-file", wrong), "the passphrase does not decrypt the master key")
    refused(target.restore(source), "use --passphrase-file")
    other = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    refused(target.restore(source, "--passphrase-file", passphrase, MASTER_KEY=other), "MASTER_KEY is the key")
    refused(target.restore(tmp_path / "missing"), "no complete backup")
    edited(migrations=[*json.loads(content)["migrations"], "tenancy.9999_later"])
    refused(target.restore(source, "--passphrase-file", passphrase), "it has the migration tenancy.9999_later")
    edited(postgresql=99)
    refused(target.restore(source, "--passphrase-file", passphrase), "made with PostgreSQL 99")
    manifest.write_text(content[: len(content) // 2])
    refused(target.restore(source, "--passphrase-file", passphrase), "the manifest is damaged")
    manifest.unlink()
    refused(target.restore(source, "--passphrase-file", passphrase), "no complete backup")
    manifest.write_text(content)
    dump.write_bytes(dumped[: len(dumped) // 2])
    refused(target.restore(source, "--passphrase-file", passphrase), "database.dump was altered")
    dump.write_bytes(dumped)

    done = target.restore(source, "--passphrase-file", passphrase)

    assert done.returncode == 0, done.stdout + done.stderr
    ours, theirs = (each.data_dir / "secrets/master_key" for each in (installation, target))
    assert (theirs.read_text(), theirs.stat().st_mode & 0o777) == (ours.read_text(), 0o600)
    refused(target.restore(source, "--passphrase-file", passphrase), "the database is not empty")
