"""``make run`` and ``make demo``: the main job once, through the public API, as its users would do it.

Everything but the first account (``manage.py bootstrap``) and the reviewer's sign-in goes over HTTP.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parent.parent
MANAGE = [sys.executable, str(ROOT / "manage.py")]
AGENT = [str(Path(sys.executable).with_name("byteor-agent"))]
AGENTS = ("edge-1", "edge-2")
ADMIN, REVIEWER = "ada@example.com", "grace@example.com"
FIRST_PORT, LAST_PORT = 8080, 8180
TIMEOUT_S = 60.0

_CHECK: dict[str, Any] = {"id": "check", "op": "dataguard_check", "depends_on": ["decode"]}
_REDACT: dict[str, Any] = {"id": "redact", "op": "dataguard_redact", "depends_on": ["check"]}
SCHEMA = {"type": "object", "required": ["symbol", "price"], "properties": {"price": {"exclusiveMinimum": 0}}}
SAMPLE = [
    {"symbol": "ACME", "price": 101.5, "account": "DE-4711"},
    {"symbol": "ACME", "price": -1, "account": "DE-4711"},
    {"symbol": "UMBR", "price": 7.25, "account": "FR-0815"},
]


class DemoError(Exception):
    """A step did not hold."""


def plan(*stages: dict[str, Any]) -> dict[str, Any]:
    """The demo's pipeline with these stages after the first."""
    return {
        "plan_v": 1,
        "name": "quotes",
        "target": "single_ring",
        "single_ring": {
            "ingress": "quotes_in",
            "egress": "quotes_out",
            "stages": [{"id": "decode", "op": "identity"}, *stages],
        },
    }


class Caller:
    """The public API, as one person."""

    def __init__(self, base: str, token: str) -> None:
        self._base, self._session = base, requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {token}"

    def __call__(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer's JSON. Raises DemoError with the problem's detail."""
        response = self._session.request(method, self._base + path, json=body, timeout=30)
        if not response.ok:
            raise DemoError(f"{method} {path}: {response.status_code} {response.text[:500]}")
        return response.json()

    def wait(self, path: str, what: str, done: Callable[[Any], bool]) -> Any:
        """Poll until ``done``. Raises DemoError after a minute."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if done(answer := self("GET", path)):
                return answer
            time.sleep(0.1)
        raise DemoError(f"{what} did not happen within {TIMEOUT_S:.0f} s: {json.dumps(answer)[:500]}")


def say(step: str, **facts: object) -> None:
    """One step's line."""
    print(f"  ✓ {step:<34} " + "  ".join(f"{name}={value}" for name, value in facts.items()), flush=True)


def free_address() -> str:
    """127.0.0.1 with the first free port from 8080 on."""
    for port in range(FIRST_PORT, LAST_PORT):
        with contextlib.closing(socket.socket()) as probe:
            # As gunicorn binds: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                if port != FIRST_PORT:
                    print(f"Port {FIRST_PORT} is taken; serving on port {port} instead.", flush=True)
                return f"127.0.0.1:{port}"
    raise DemoError(f"no free port from {FIRST_PORT} to {LAST_PORT - 1}")


class Demo:
    """One walk, with the processes that it started."""

    def __init__(self, data_dir: Path, environ: Mapping[str, str]) -> None:
        self.data_dir = data_dir
        self.folder = data_dir / "demo-agents"
        self.environ = {**environ, "BYTEOR_CLOUD_DATA_DIR": str(data_dir)}
        address = self.environ.setdefault("BYTEOR_CLOUD_API_BIND_ADDR", free_address())
        self.base = f"http://{address}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.sign_in: dict[str, dict[str, str]] = {}

    def start(self, name: str, argv: list[str]) -> subprocess.Popen[bytes]:
        """Start a process; what it says is in a file beside the data."""
        with (self.data_dir / f"{name}.log").open("ab") as log:
            # In a group of its own: a Ctrl-C is for the demo alone, which ends the others in order.
            process = subprocess.Popen(
                argv, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, process_group=0
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """End what was started, the newest first."""
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=40)
            process.kill()

    def manage(self, *argv: str) -> dict[str, str]:
        """A management command's JSON. Raises DemoError with what it said."""
        done = subprocess.run([*MANAGE, *argv, "--json"], env=self.environ, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DemoError(f"manage.py {argv[0]}: {done.stderr.strip()[-500:]}")
        answer: dict[str, str] = json.loads(done.stdout)
        return answer

    def serve(self) -> None:
        """Start the control plane and wait until it is ready."""
        self.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        server = self.start("serve", [*MANAGE, "serve"])
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if server.poll() is not None:
                log = (self.data_dir / "serve.log").read_text().strip().splitlines()[-5:]
                raise DemoError("the server ended: " + " | ".join(log))
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.base}/readyz", timeout=2).ok:
                    say("control plane is ready", at=self.base)
                    return
            time.sleep(0.1)
        raise DemoError(f"the server was not ready within {TIMEOUT_S:.0f} s; see {self.data_dir}/serve.log")

    def walk(self) -> None:
        """The main job, a line a step."""
        org = self._found_organization()
        admin = Caller(self.base, self.sign_in[ADMIN]["token"])
        organization = f"/api/v1/orgs/{org}"
        admin("POST", f"{organization}/members", {"email": REVIEWER, "role": "operator"})
        self.sign_in[REVIEWER] = self.manage("sign_in_link", "--email", REVIEWER)
        reviewer = Caller(self.base, self.sign_in[REVIEWER]["token"])
        project = admin("POST", f"{organization}/projects", {"name": "Market data"})["id"]
        settings = {"heartbeat_interval_s": 5}
        body = {"name": "Production", "posture": "prod", "settings": settings}
        env = admin("POST", f"{organization}/projects/{project}/environments", body)["id"]
        path = f"{organization}/projects/{project}/environments/{env}"
        say("workspace", organization=org, project=project, environment=env)

        self._start_agents(admin, path)
        draft = admin("POST", f"{path}/drafts", {"name": "quotes", "plan": plan(_CHECK)})
        preview = admin("POST", f"{path}/drafts/{draft['id']}/preview", {})
        say("draft and preview", draft=draft["id"], spec_hash=preview["spec_hash"])
        params = {"check": {"schema": SCHEMA}}
        first = self._release(admin, reviewer, path, draft["id"], "quotes v1", params)

        changed = {"plan": plan(_CHECK, _REDACT)}
        admin("PUT", f"{path}/drafts/{draft['id']}", changed)
        params["redact"] = {"rules": ["account:mask=2:0:*"]}  # type: ignore[dict-item]  # each op has its own shape
        second = self._release(admin, reviewer, path, draft["id"], "quotes v2", params)

        self._capture_and_replay(admin, path)
        rollback = {"reason": "the demo goes back"}
        admin("POST", f"{path}/deployments/{second['id']}/rollback", rollback)
        one = f"{path}/deployments/{second['id']}"
        admin.wait(one, "the rollback", lambda d: d["status"] == "rolled_back")
        restored = admin("GET", f"{path}/deployments/{first['id']}")
        self._wait_for_agents(admin, path, restored["bundle_hash"])
        say("rolled back", restored=restored["id"], is_current=restored["is_current"])
        if not restored["is_current"]:
            raise DemoError("the earlier deployment is not current again")

    def _found_organization(self) -> str:
        for number in range(1, 1000):
            name = "Demo" if number == 1 else f"Demo {number}"
            try:
                made = self.manage("bootstrap", "--org", name, "--email", ADMIN)
            except DemoError as error:
                if "exists already" not in str(error):
                    raise
                continue  # `make run` was here before
            self.sign_in[ADMIN] = made
            say(f"organization {name!r}", id=made["org_id"], admin=ADMIN)
            return made["org_id"]
        raise DemoError("there are a thousand demo organizations here already")

    def _start_agents(self, admin: Caller, path: str) -> None:
        # An earlier run's agents belong to that run's organization.
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        sample = self.folder / "sample.jsonl"
        sample.write_text("".join(json.dumps(record) + "\n" for record in SAMPLE))
        token = admin("POST", f"{path}/enrollment-tokens", {"max_uses": len(AGENTS)})["token"]
        for name in AGENTS:
            state = str(self.folder / name)
            self.agent(
                "enroll", "--url", self.base, "--environment", self.base + path, "--name", name, "--state", state,
                enrollment_token=token,
            )  # fmt: skip
            run = ["run", "--state", state, "--sample", str(sample), "--interval-override", "0.5"]
            self.start(name, [*AGENT, *run])
        say("agents enrolled and running", names=",".join(AGENTS))

    def agent(self, *argv: str, enrollment_token: str | None = None) -> str:
        """One command of the reference agent. Raises DemoError with what it said."""
        environ = dict(self.environ)
        if enrollment_token is not None:
            environ["BYTEOR_ENROLLMENT_TOKEN"] = enrollment_token
        done = subprocess.run([*AGENT, *argv], env=environ, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode != 0:
            raise DemoError(f"byteor-agent {argv[0]}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def _release(
        self, admin: Caller, reviewer: Caller, path: str, draft: str, name: str, stage_config: Mapping[str, Any]
    ) -> Any:
        version = admin("POST", f"{path}/drafts/{draft}/version", {})
        say(f"version {version['name']} v{version['number']}", id=version["id"], spec_hash=version["spec_hash"])
        body = {"name": name, "version_id": version["id"], "stage_config": stage_config}
        bundle = admin("POST", f"{path}/config-bundles", body)
        say("config bundle", id=bundle["id"], config_hash=bundle["config_hash"])
        body = {"config_bundle_id": bundle["id"], "target": {"all": True}, "note": name}
        deployment = admin("POST", f"{path}/deployments", body)
        say("deployment requested", id=deployment["id"], status=deployment["status"])
        decision = {"deployment_id": deployment["id"], "decision": "approve", "comment": "looks right"}
        approval = reviewer("POST", f"{path}/approvals", decision)
        say("approved by another person", id=approval["id"], by=approval["decisions"][0]["decided_by"])
        one = f"{path}/deployments/{deployment['id']}"
        active = admin.wait(one, "the deployment", lambda d: d["status"] in {"active", "failed", "rolled_back"})
        if active["status"] != "active":
            raise DemoError(f"the deployment is {active['status']}: {active['detail']}")
        self._wait_for_agents(admin, path, active["bundle_hash"])
        say("fetched, verified, activated", agents=active["progress"]["active"], bundle_hash=active["bundle_hash"])
        return active

    @staticmethod
    def _wait_for_agents(admin: Caller, path: str, bundle_hash: str) -> None:
        def all_run_it(agents: Any) -> bool:
            running = [(agent["running"] or {}).get("bundle_hash") for agent in agents["results"]]
            return running == [bundle_hash] * len(AGENTS)

        admin.wait(f"{path}/agents", "a heartbeat from every agent with the new bundle", all_run_it)

    def _capture_and_replay(self, admin: Caller, path: str) -> None:
        state = str(self.folder / AGENTS[0])
        said = self.agent("upload", "--state", state, "--kind", "incident_bundle", "--capture")
        artifact = json.loads(said)
        one = f"{path}/artifacts/{artifact['id']}"
        checked = admin.wait(one, "the ingest", lambda a: a["status"] != "received")
        if checked["status"] != "verified":
            raise DemoError(f"the incident was {checked['status']}: {checked['reasons']}")
        say("incident captured and verified", id=checked["id"], content_hash=checked["content_hash"])
        results = []
        for _ in range(2):
            replay = admin("POST", f"{one}/replay", {"mode": "dry_run"})
            ended = admin.wait(f"{path}/replays/{replay['id']}", "the replay", lambda r: r["finished_at"] is not None)
            if ended["status"] != "succeeded":
                raise DemoError(f"the replay {ended['status']}: {ended['error'] or ended['result']}")
            results.append(ended["result"])
        egress = results[0]["egress"]["quotes_out"]
        say("replayed, twice the same", records=egress["records"], sha256=egress["sha256"])
        if results[0] != results[1]:
            raise DemoError("two replays of one artifact differ")

    def print_addresses(self) -> None:
        """What a newcomer tries next."""
        print(f"\n  Site      {self.base}/\n  API docs  {self.base}/api/docs\n  Console   {self.base}/admin/")
        for email, made in self.sign_in.items():
            print(f"\n  {email}\n    user token        {made['token']}\n    one-time sign-in  {made['login_url']}")
        print(f"\n  curl -H 'Authorization: Bearer {self.sign_in[ADMIN]['token']}' {self.base}/api/v1/me\n", flush=True)


@contextlib.contextmanager
def _data_dir(serve: bool) -> Iterator[Path]:
    if serve:
        yield Path(os.environ.get("BYTEOR_CLOUD_DATA_DIR") or "var").absolute()
        return
    scratch = Path(tempfile.mkdtemp(prefix="byteor-demo-"))
    scratch.chmod(0o711)  # the embedded database's account must be able to pass
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Walk the main job; 0 when every step held. With ``--serve`` go on serving until stopped."""
    parser = argparse.ArgumentParser(prog="byteor_cloud.demo", description=main.__doc__)
    parser.add_argument("--serve", action="store_true", help="keep the data folder, and serve until stopped")
    serve = parser.parse_args().serve
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    began = time.monotonic()
    with _data_dir(serve) as data_dir:
        try:
            demo = Demo(data_dir, os.environ)
        except DemoError as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        try:
            demo.serve()
            demo.walk()
            print(f"\nEvery step held, in {time.monotonic() - began:.1f} s.", flush=True)
            if serve:
                demo.print_addresses()
                print(f"Serving on {demo.base} until you press Ctrl-C.", flush=True)
                demo.processes[0].wait()
                raise DemoError("the server ended by itself")
        except DemoError as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 0 if serve else 130
        finally:
            demo.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
