"""A story from sign-in to sign-out with the command ``byteor``: two people, two agents and a server.

The story runs any ``byteor``: that of the checkout, or one that is installed alone from its wheel.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE_S, wait_until

SAMPLE = [
    {"symbol": "ACME", "price": 101.5, "account": "DE-4711"},
    {"symbol": "ACME", "price": -1, "account": "DE-4711"},
    {"symbol": "UMBR", "price": 7.25, "account": "FR-0815"},
]
PLAN = """\
plan_v: 1
name: quotes
target: single_ring
single_ring:
  ingress: quotes_in
  egress: quotes_out
  stages:
    - {id: decode, op: identity}
    - {id: check, op: dataguard_check, depends_on: [decode]}
"""
SCHEMA = "{type: object, required: [symbol, price], properties: {price: {exclusiveMinimum: 0}}}"
CONFIG = f"stage_config:\n  check:\n    schema: {SCHEMA}\n"
REDACT = "    - {id: redact, op: dataguard_redact, depends_on: [check]}\n"
RULES = '  redact:\n    rules: ["account:mask=2:0:*"]\n'


class Terminal:
    """The terminal of a person or of the agents' machine, with its own configuration folder."""

    def __init__(self, byteor: Path, folder: Path) -> None:
        self._byteor = byteor
        self.folder = folder
        folder.mkdir(parents=True)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("BYTEOR_", "PYTHON"))}
        self.environ = {**clean, "XDG_CONFIG_HOME": str(folder / "config")}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command with pipes for its input, output and errors."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [self._byteor, *arguments], cwd=self.folder, env=self.environ, text=True, stdin=pipe, stdout=pipe,
            stderr=pipe, **options,
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        """Run a command, check its exit code, and return its standard output."""
        process = self.start(*arguments)
        out, err = process.communicate(stdin, timeout=PATIENCE_S)
        assert process.returncode == code, f"byteor {' '.join(arguments)}: exit {process.returncode}\n{out}\n{err}"
        return out

    def json(self, *arguments: str, stdin: str = "") -> Any:
        """Run a command with ``--json``, and return the parsed output."""
        return json.loads(self.run(*arguments, "--json", stdin=stdin))

    def sign_in(self, base: str, allow: Callable[[str], None], *options: str) -> None:
        """Sign in with the device flow. ``allow`` opens the printed address and allows the sign-in."""
        process = self.start("login", base, "--no-browser", *options)
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"https?://\S+user_code=\S+", line):
                allow(found[0])
                break
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, out + err


class Story:
    """Ada, who administers, and Grace, who reviews, release a pipeline to two agents."""

    def __init__(self, byteor: Path, folder: Path, base: str) -> None:
        self.base = base
        self.ada, self.grace = Terminal(byteor, folder / "ada"), Terminal(byteor, folder / "grace")
        self._machine = Terminal(byteor, folder / "machine")
        self._agents: list[subprocess.Popen[str]] = []

    def tell(
        self,
        *,
        allow: Callable[[str], None],
        invite: Callable[[str], Callable[[str], None]],
    ) -> None:
        """Tell the whole story.

        ``allow`` opens the address of a device sign-in as Ada, and allows the sign-in. ``invite`` is called with
        Grace's e-mail address after Ada has added her, and returns a function like ``allow`` for Grace.
        """
        try:
            self._sign_in(allow, invite)
            self._enroll_agents()
            self._release("quotes v1", PLAN, CONFIG, version="quotes:1")
            self._verify_evidence()
            incident = self._study_incident()
            self._release_with_differences()
            self._bisect(incident)
            self._roll_back()
            self._sign_out()
        finally:
            for agent in self._agents:
                agent.terminate()
            for agent in self._agents:
                agent.communicate(timeout=PATIENCE_S)

    def _sign_in(self, allow: Callable[[str], None], invite: Callable[[str], Callable[[str], None]]) -> None:
        ada = self.ada
        ada.run("agents", "list", code=4)
        ada.sign_in(self.base, allow)
        project = ada.json("api", "POST", "/api/v1/orgs/{org}/projects", "-d", '{"name": "Market data"}')["id"]
        body = json.dumps({"name": "prod", "posture": "prod", "settings": {"heartbeat_interval_s": 5}})
        ada.json("api", "POST", f"/api/v1/orgs/{{org}}/projects/{project}/environments", "-d", body)
        ada.run("context", "set", "--project", "Market data", "--env", "prod")
        member = '{"email": "grace@example.com", "role": "operator"}'
        ada.json("api", "POST", "/api/v1/orgs/{org}/members", "-d", member)
        self.grace.sign_in(self.base, invite("grace@example.com"))

    def _enroll_agents(self) -> None:
        token = self.ada.json("agents", "enroll-token", "--max-uses", "2")
        environment = re.search(r"--environment (\S+)", token["command"])
        assert environment is not None
        sample = self._machine.folder / "sample.jsonl"
        sample.write_text("".join(json.dumps(record) + "\n" for record in SAMPLE))
        self._machine.environ["BYTEOR_ENROLLMENT_TOKEN"] = token["token"]
        for name in ("edge-1", "edge-2"):
            self._machine.run(
                "agent", "enroll", "--url", self.base, "--environment", environment[1].strip("'"), "--name", name,
                "--state", name,
            )  # fmt: skip
            self._agents.append(
                self._machine.start(
                    "agent", "run", "--state", name, "--sample", str(sample), "--interval-override", "0.5"
                )
            )
        wait_until(lambda: [each["liveness"] for each in self.ada.json("agents", "list")] == ["online"] * 2)

    def _release(self, name: str, plan: str, config: str, *, version: str) -> None:
        """Save and promote the plan, bundle it, deploy it, and let Grace approve it while Ada's command waits."""
        self._bundle(name, plan, config, version=version)
        deploying = self.ada.start("deploy", name, "--yes", "--note", name)
        self._approve(name)
        out, err = deploying.communicate(timeout=PATIENCE_S)
        assert deploying.returncode == 0, out + err
        assert [each["running"] is not None for each in self.ada.json("agents", "list")] == [True, True]

    def _verify_evidence(self) -> None:
        """Save the evidence, and verify it. Sets ``evidence`` to the file, and ``kid`` to the id of the signing key."""
        self.evidence = self.ada.folder / "evidence.tar"
        self.ada.run("deployments", "evidence", "quotes", "-o", str(self.evidence))
        self.kid = self.ada.json("api", "GET", "/api/v1/orgs/{org}/signing-keys")["results"][0]["kid"]
        assert self.ada.run("verify", str(self.evidence), "--trust", self.kid).startswith("PROVEN")

    def _bundle(self, name: str, plan: str, config: str, *, version: str) -> None:
        ada = self.ada
        (ada.folder / "plan.yaml").write_text(plan)
        (ada.folder / "config.yaml").write_text(config)
        ada.run("drafts", "apply", "-f", "plan.yaml")
        assert "single_ring" in ada.run("drafts", "preview", "quotes")
        assert version in ada.run("drafts", "promote", "quotes")
        ada.run("bundles", "create", version, "-f", "config.yaml", "--name", name)

    def _approve(self, name: str, *options: str) -> None:
        wait_until(lambda: self.grace.json("approvals", "list", "--mine"))
        assert name in self.grace.run("approvals", "show")
        self.grace.run("approve", "--comment", "looks right", "--yes", *options)

    def _study_incident(self) -> str:
        """Capture an incident, fetch, replay and keep it, and trace a record. Return the incident's id."""
        ada = self.ada
        upload = ("upload", "--state", "edge-1", "--kind", "incident_bundle", "--capture")
        incident: str = json.loads(self._machine.run("agent", *upload))["id"]
        wait_until(lambda: ada.json("artifacts", "show", incident)["status"] == "verified")
        ada.run("artifacts", "pull", incident, "-o", "incident.tar.gz")
        assert json.loads(ada.run("replay", "incident.tar.gz"))
        assert len(ada.json("artifacts", "records", incident)) >= len(SAMPLE)
        replay = ada.json("artifacts", "replay", incident)
        assert replay["status"] == "succeeded"
        assert "check" in ada.run("artifacts", "trace", replay["id"], "2")
        ada.run("artifacts", "keep", incident, "--name", "negative price")
        assert json.loads(ada.run("fixtures", "list", "--json=name")) == [{"name": "negative price"}]
        return incident

    def _release_with_differences(self) -> None:
        """Let the replay gate stop a release that masks accounts, and let Grace accept the differences."""
        ada = self.ada
        settings = '{"settings": {"replay_gate": "require"}}'
        ada.json("api", "PUT", "/api/v1/orgs/{org}/projects/{project}/environments/{env}", "-d", settings)
        self._bundle("quotes v2", PLAN + REDACT, CONFIG + RULES, version="quotes:2")
        difference = ada.run("drafts", "diff", "quotes", "quotes:1")
        assert "redact" in difference
        regressed = json.loads(ada.run("regress", "--bundle", "quotes v2", "--json", code=1))
        assert "account" in ada.run("regress", "--bundle", "quotes v2", "--markdown", code=1)
        deploying = ada.start("deploy", "quotes v2", "--yes")
        self._approve("quotes v2", *(f"--accept={group['id']}" for group in regressed["groups"]))
        out, err = deploying.communicate(timeout=PATIENCE_S)
        assert deploying.returncode == 0, out + err

    def _bisect(self, incident: str) -> None:
        """Promote a version that lacks the check, and let the bisect find that version."""
        (self.ada.folder / "plan.yaml").write_text(PLAN[: PLAN.index("    - {id: check")])
        self.ada.run("drafts", "apply", "-f", "plan.yaml")
        self.ada.run("drafts", "promote", "quotes")
        assert "3" in self.ada.run("artifacts", "bisect", incident).splitlines()[0]

    def _roll_back(self) -> None:
        self.ada.run("rollback", "--reason", "The mask is wrong.", "--yes", "--wait")
        current = [each["status"] for each in self.ada.json("deployments", "list") if each["is_current"]]
        assert current == ["active"]
        self.ada.run("deployments", "timeline")
        assert "deployment.roll_back" in self.ada.run("audit", "list", "--json=action")
        assert self.ada.json("usage")

    def _sign_out(self) -> None:
        self.ada.run("logout")
        self.ada.run("agents", "list", code=4)
