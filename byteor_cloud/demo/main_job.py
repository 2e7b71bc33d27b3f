"""The steps of the demo, from a new organization to a rollback, most of them through the public API.

The exceptions: ``manage.py`` creates the organization with its first org_admin, that person's token, and sign-in links.
The reviewer signs in to the console with such a link and creates a token there. ``byteor-verify`` checks the
exported evidence offline.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from byteor_cloud.demo.processes import ApiClient, DemoError, Processes, print_step

AGENTS = ("edge-1", "edge-2")
ADMIN, REVIEWER = "ada@example.com", "grace@example.com"

_CHECK: dict[str, Any] = {"id": "check", "op": "dataguard_check", "depends_on": ["decode"]}
_REDACT: dict[str, Any] = {"id": "redact", "op": "dataguard_redact", "depends_on": ["check"]}
SCHEMA = {"type": "object", "required": ["symbol", "price"], "properties": {"price": {"exclusiveMinimum": 0}}}
SAMPLE = [
    {"symbol": "ACME", "price": 101.5, "account": "DE-4711"},
    {"symbol": "ACME", "price": -1, "account": "DE-4711"},
    {"symbol": "UMBR", "price": 7.25, "account": "FR-0815"},
]


def plan(*stages: dict[str, Any]) -> dict[str, Any]:
    """Return the plan of the demo's pipeline with ``stages`` after its first stage."""
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


class Demo(Processes):
    """One run of the demo with its people and agents."""

    def __init__(self, data_dir: Path, environ: Mapping[str, str]) -> None:
        super().__init__(data_dir, environ)
        self.sign_in: dict[str, dict[str, str]] = {}

    def run_main_job(self) -> None:
        """Carry out the steps and print their results."""
        org = self._create_organization()
        admin = ApiClient(self.base, self.sign_in[ADMIN]["token"])
        organization = f"/api/v1/orgs/{org}"
        admin("POST", f"{organization}/members", {"email": REVIEWER, "role": "operator"})
        issued = self.manage("sign_in_link", "--email", REVIEWER)
        self.sign_in[REVIEWER] = {**issued, "token": self._create_token(issued)}
        reviewer = ApiClient(self.base, self.sign_in[REVIEWER]["token"])
        project = admin("POST", f"{organization}/projects", {"name": "Market data"})["id"]
        settings = {"heartbeat_interval_s": 5}
        body = {"name": "Production", "posture": "prod", "settings": settings}
        env = admin("POST", f"{organization}/projects/{project}/environments", body)["id"]
        path = f"{organization}/projects/{project}/environments/{env}"
        print_step("project and environment created", organization=org, project=project, environment=env)

        self._start_earlier_agents()
        self._enroll_agents(admin, path)
        draft = admin("POST", f"{path}/drafts", {"name": "quotes", "plan": plan(_CHECK)})
        preview = admin("POST", f"{path}/drafts/{draft['id']}/preview", {})
        print_step("draft saved and previewed", draft=draft["id"], spec_hash=preview["spec_hash"])
        params = {"check": {"schema": SCHEMA}}
        self._release(admin, reviewer, path, draft["id"], "quotes v1", params)

        changed = {"plan": plan(_CHECK, _REDACT)}
        admin("PUT", f"{path}/drafts/{draft['id']}", changed)
        params["redact"] = {"rules": ["account:mask=2:0:*"]}  # type: ignore[dict-item]  # the parameters of each op differ
        second = self._release(admin, reviewer, path, draft["id"], "quotes v2", params)

        incident = self._capture_and_replay(admin, path)
        self._keep_as_fixture(admin, path, incident)
        params["redact"] = {"rules": ["account:mask=0:2:*"]}  # type: ignore[dict-item]  # as above
        third = self._request_deployment(admin, path, second["version_id"], "quotes v2, other mask", params)
        self._accept_differences(admin, reviewer, path, third)
        self._wait_until_active(admin, path, third)
        self._verify_evidence(admin, organization, path, third)

        third_path = f"{path}/deployments/{third['id']}"
        admin("POST", f"{third_path}/rollback", {"reason": "the demo shows a rollback"})
        admin.wait(third_path, "the rollback", lambda d: d["status"] == "rolled_back")
        restored = admin("GET", f"{path}/deployments/{second['id']}")
        self._wait_for_agents(admin, path, restored["bundle_hash"])
        print_step("rolled back", restored=restored["id"], is_current=restored["is_current"])
        if not restored["is_current"]:
            raise DemoError("the earlier deployment is not current again")

    def _create_organization(self) -> str:
        """Create the first of "Demo", "Demo 2", … that does not exist, and return its id."""
        for number in range(1, 1000):
            name = "Demo" if number == 1 else f"Demo {number}"
            try:
                created = self.manage("bootstrap", "--org", name, "--email", ADMIN)
            except DemoError as error:
                if "already exists" not in str(error):
                    raise
                continue  # usually, an earlier run created it
            self.run_number = number
            self.sign_in[ADMIN] = created
            print_step(f"organization {name!r}", id=created["org_id"], admin=ADMIN)
            return created["org_id"]
        raise DemoError("the database already contains 999 demo organizations")

    def _create_token(self, issued: Mapping[str, str]) -> str:
        """Sign in with a link and create a user token in the console, as a person would. Returns the token."""
        with requests.Session() as browser:
            browser.trust_env = False

            def send(method: str, url: str, form: Mapping[str, str] | None = None) -> requests.Response:
                response = browser.request(method, url, data=form, timeout=30)
                for cookie in browser.cookies:
                    cookie.secure = False  # the demo uses http even if PUBLIC_BASE_URL is an https URL
                return response

            def fill_in(url: str, **values: str) -> str:
                """Open a page, submit its form, and return the next page. Raises DemoError for an error status."""
                hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', send("GET", url).text)
                response = send("POST", url, {**dict(hidden), **values})
                if not response.ok:
                    raise DemoError(f"POST {url.removeprefix(self.base)}: {response.status_code}")
                return response.text

            # The link may contain another address of the server, such as PUBLIC_BASE_URL.
            fill_in(self.base + issued["login_url"][issued["login_url"].index("/auth/link/") :])
            form = f"{self.base}/admin/tenancy/user/{issued['user_id']}/act/create_token/"
            created = re.search(r"bor_usr_\w+", fill_in(form, name="demo", expires_in_s="86400"))
            if created is None:
                raise DemoError("the console created no user token")
            return created[0]

    def _start_earlier_agents(self) -> None:
        """Start the agents that earlier runs enrolled, so that their organizations keep working."""
        self.folder.mkdir(exist_ok=True)
        for name in AGENTS:
            # If this run's folder already exists, it usually belongs to an agent of an earlier database.
            shutil.rmtree(self.state_folder(name), ignore_errors=True)
        folders = sorted(path.parent for path in self.folder.glob("*/agent.json"))
        for folder in folders:
            # The variables override the stored URL, because an earlier run may have served on another port.
            variables = {
                "BYTEOR_API_BASE_URL": self.base,
                "BYTEOR_AGENT_ID": json.loads((folder / "agent.json").read_text())["agent_id"],
                "BYTEOR_AGENT_API_KEY": (folder / "api_key").read_text(),
            }
            self.run_agent(folder, variables)
        if folders:
            print_step("agents of earlier runs restarted", names=",".join(folder.name for folder in folders))

    def _enroll_agents(self, admin: ApiClient, path: str) -> None:
        sample = "".join(json.dumps(record) + "\n" for record in SAMPLE)
        (self.folder / "sample.jsonl").write_text(sample)
        token = admin("POST", f"{path}/enrollment-tokens", {"max_uses": len(AGENTS)})["token"]
        for name in AGENTS:
            folder = self.state_folder(name)
            self.agent(
                "enroll", "--url", self.base, "--environment", self.base + path, "--name", name,
                "--state", str(folder), enrollment_token=token,
            )  # fmt: skip
            self.run_agent(folder)
        print_step("agents enrolled and running", names=",".join(AGENTS))

    def _release(
        self, admin: ApiClient, reviewer: ApiClient, path: str, draft: str, name: str, stage_config: Mapping[str, Any]
    ) -> Any:
        version = admin("POST", f"{path}/drafts/{draft}/version", {})
        print_step(f"version {version['name']} v{version['number']}", id=version["id"], spec_hash=version["spec_hash"])
        deployment = self._request_deployment(admin, path, version["id"], name, stage_config)
        self._approve(reviewer, path, deployment, comment="looks right")
        return self._wait_until_active(admin, path, deployment)

    @staticmethod
    def _request_deployment(
        admin: ApiClient, path: str, version: str, name: str, stage_config: Mapping[str, Any]
    ) -> Any:
        body = {"name": name, "version_id": version, "stage_config": stage_config}
        bundle = admin("POST", f"{path}/config-bundles", body)
        print_step("config bundle created", id=bundle["id"], config_hash=bundle["config_hash"])
        body = {"config_bundle_id": bundle["id"], "target": {"all": True}, "note": name}
        deployment = admin("POST", f"{path}/deployments", body)
        print_step("deployment requested", id=deployment["id"], status=deployment["status"])
        return deployment

    @staticmethod
    def _approve(reviewer: ApiClient, path: str, deployment: Any, **decision: Any) -> None:
        body = {"deployment_id": deployment["id"], "decision": "approve", **decision}
        approval = reviewer("POST", f"{path}/approvals", body)
        print_step("approved by another person", id=approval["id"], by=approval["decisions"][0]["decided_by"])

    def _wait_until_active(self, admin: ApiClient, path: str, deployment: Any) -> Any:
        deployment_path = f"{path}/deployments/{deployment['id']}"
        active = admin.wait(
            deployment_path, "the deployment", lambda d: d["status"] in {"active", "failed", "rolled_back"}
        )
        if active["status"] != "active":
            raise DemoError(f"the deployment is {active['status']}: {active['detail']}")
        self._wait_for_agents(admin, path, active["bundle_hash"])
        print_step(
            "fetched, verified, activated", agents=active["progress"]["active"], bundle_hash=active["bundle_hash"]
        )
        return active

    @staticmethod
    def _wait_for_agents(admin: ApiClient, path: str, bundle_hash: str) -> None:
        def all_run_it(agents: Any) -> bool:
            running = [(agent["running"] or {}).get("bundle_hash") for agent in agents["results"]]
            return running == [bundle_hash] * len(AGENTS)

        admin.wait(f"{path}/agents", "a heartbeat with the expected bundle from every agent", all_run_it)

    def _capture_and_replay(self, admin: ApiClient, path: str) -> str:
        """Let an agent upload an incident, and replay it twice. Returns the artifact's id."""
        state = str(self.state_folder(AGENTS[0]))
        printed = self.agent("upload", "--state", state, "--kind", "incident_bundle", "--capture")
        artifact_path = f"{path}/artifacts/{json.loads(printed)['id']}"
        artifact = admin.wait(artifact_path, "the ingest", lambda a: a["status"] != "received")
        if artifact["status"] != "verified":
            raise DemoError(f"the incident is {artifact['status']}: {artifact['reasons']}")
        print_step("incident captured and verified", id=artifact["id"], content_hash=artifact["content_hash"])
        results = []
        for _ in range(2):
            replay = admin("POST", f"{artifact_path}/replay", {"mode": "dry_run"})
            replay_path = f"{path}/replays/{replay['id']}"
            finished = admin.wait(replay_path, "the replay", lambda r: r["finished_at"] is not None)
            if finished["status"] != "succeeded":
                raise DemoError(f"the replay is {finished['status']}: {finished['error'] or finished['result']}")
            results.append(finished["result"])
        if results[0] != results[1]:
            raise DemoError("two replays of the same incident have different results")
        egress = results[0]["egress"]["quotes_out"]
        print_step("replayed twice with equal results", records=egress["records"], sha256=egress["sha256"])
        incident: str = artifact["id"]
        return incident

    @staticmethod
    def _keep_as_fixture(admin: ApiClient, path: str, incident: str) -> None:
        """Keep the incident as a regression test, and require the replay gate in the environment."""
        fixture = admin("POST", f"{path}/fixtures", {"artifact_id": incident, "name": "negative price"})
        print_step("incident kept as a fixture", id=fixture["id"], name=repr(fixture["name"]))
        settings = admin("PUT", path, {"settings": {"replay_gate": "require"}})["settings"]
        print_step("replay gate required", replay_gate=settings["replay_gate"])

    def _accept_differences(self, admin: ApiClient, reviewer: ApiClient, path: str, deployment: Any) -> None:
        """Wait until the gate stops the deployment, show the differences, and let the reviewer accept them."""

        def is_tested(found: Any) -> bool:
            return "replay_gate.running" not in [each["code"] for each in found["blockers"]]

        tested = admin.wait(f"{path}/deployments/{deployment['id']}", "the regression", is_tested)
        if [each["code"] for each in tested["blockers"]] != ["replay_gate.differs"]:
            raise DemoError(f"the replay gate should be the only blocker, but the blockers are {tested['blockers']}")
        [blocker] = tested["blockers"]
        print_step("stopped by the replay gate", blocker=blocker["code"], detail=repr(blocker["detail"]))
        groups = reviewer("GET", f"{path}/regressions/{tested['regression_id']}")["groups"]
        for group in groups:
            print_step(
                "difference", group=group["id"][:8], kind=group["kind"], members=",".join(group["pointers"]),
                records=group["count"], fixture=repr(group["fixtures"][0]["name"]),
            )  # fmt: skip
            for side in ("before", "after"):
                print(f"      {side:<6}  {json.dumps(group['example'][side]['json'])}", flush=True)
        accepted = {"accept_groups": [group["id"] for group in groups], "comment": "the new mask is wanted"}
        self._approve(reviewer, path, deployment, **accepted)

    def _verify_evidence(self, admin: ApiClient, organization: str, path: str, deployment: Any) -> None:
        """Export the deployment's evidence, and verify it offline with the id of the organization's signing key."""
        key = admin("GET", f"{organization}/signing-keys")["results"][0]["kid"]
        evidence = self.data_dir / "evidence.tar"
        evidence.write_bytes(admin.download(f"{path}/deployments/{deployment['id']}/evidence"))
        outcome, *lines = self.verify(str(evidence), "--require-approval", "--trust", key).splitlines()
        print_step("evidence verified offline", outcome=outcome)
        for line in lines:
            if line.startswith(("  approved by", "  tested", "  accepted")):
                print("    " + line, flush=True)

    def print_addresses(self) -> None:
        """Print the URLs and credentials for further use."""
        print(f"\n  Home      {self.base}/\n  API docs  {self.base}/api/docs\n  Console   {self.base}/admin/")
        self.sign_in[REVIEWER] |= self.manage("sign_in_link", "--email", REVIEWER)  # the first link was used
        for email, issued in self.sign_in.items():
            print(f"\n  {email}\n    user token        {issued['token']}\n    one-time sign-in  {issued['login_url']}")
        print(f"\n  curl -H 'Authorization: Bearer {self.sign_in[ADMIN]['token']}' {self.base}/api/v1/me\n", flush=True)
