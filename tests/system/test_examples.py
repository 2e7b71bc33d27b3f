"""Test that a live server accepts every example body of the OpenAPI document, sent in one story."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.laws.tenants import INCIDENT, RING
from tests.openapi import document
from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import Installation

WITH_BODY = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
    if "requestBody" in operation
}


class Story:
    """Sends requests by operation id, with the example of the OpenAPI document as the body."""

    def __init__(self, installation: Installation) -> None:
        made = installation.bootstrap("Globex")
        self.base = installation.base
        self.token: str = made["token"]
        self.ids: dict[str, str] = {"org_id": made["org_id"]}
        self.sent: set[str] = set()

    def example(self, operation_id: str, **values: Any) -> dict[str, Any]:
        """Return the example of an operation with its ids and hashes replaced by those of this story."""
        _, _, operation = WITH_BODY[operation_id]
        (content,) = operation["requestBody"]["content"].values()
        assert values.keys() <= content["example"].keys()
        return {**content["example"], **values}

    def send(self, operation_id: str, path_id: str = "", *, token: str = "", **values: Any) -> Any:
        """Send the example and return the body of the response. ``path_id`` is the last id in the path."""
        method, path, _ = WITH_BODY[operation_id]
        ids = {**self.ids, **dict.fromkeys(("id", "user_id", "kid"), path_id)}
        answer = self.call(method, path.format(**ids), self.example(operation_id, **values), token=token)
        self.sent.add(operation_id)
        return answer

    def call(self, method: str, path: str, body: Any = None, *, token: str = "") -> Any:
        """Send a request, assert that it succeeds, and return the body of the response."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        response = requests.request(method, self.base + path, json=body, headers=headers, timeout=PATIENCE_S)
        assert response.ok, f"{method} {path}: {response.text}"
        return response.json()

    def upload(self, agent: Any, file: bytes, **values: Any) -> Any:
        """Upload an artifact with the fields of the example."""
        form = self.example("uploadArtifact", **values)
        form.pop("file")
        response = requests.post(
            f"{self.base}/api/v1/agents/{agent['agent_id']}/artifacts",
            data=form,
            files={"file": ("capture", file)},
            headers={"Authorization": f"Bearer {agent['api_key']}"},
            timeout=PATIENCE_S,
        )
        assert response.ok, response.text
        self.sent.add("uploadArtifact")
        return response.json()

    def environment_path(self) -> str:
        return "/api/v1/orgs/{org_id}/projects/{project_id}/environments/{env_id}".format(**self.ids)

    def read(self, path: str) -> Any:
        """Return a resource. The path is relative to the environment."""
        return self.call("GET", self.environment_path() + path)

    def await_status(self, path: str, status: str) -> None:
        """Wait until a resource has the status."""
        wait_until(lambda: self.read(path)["status"] == status)

    def await_offer(self, agent: Any, deployment_id: str, action: str = "activate") -> Any:
        """Wait until the agent is offered the deployment, and return the offer."""
        path = f"/api/v1/agents/{agent['agent_id']}/deployment"

        def offer() -> Any:
            return self.call("GET", path, token=agent["api_key"])["desired"] or {"deployment_id": None, "action": None}

        wait_until(lambda: (offer()["deployment_id"], offer()["action"]) == (deployment_id, action))
        return offer()


@pytest.fixture(scope="module")
def story(running: Installation) -> Story:
    return Story(running)


def test_every_example_is_accepted(story: Story) -> None:
    organize(story)
    bundles = author(story)
    agent = enroll(story)
    release(story, agent, bundles)
    replay(story, agent)

    assert story.sent == WITH_BODY.keys()


def organize(story: Story) -> None:
    """Create an organization, its keys and members, a project and an environment."""
    story.send("createUserToken")
    story.send("createOrganization")
    story.send("updateOrganization")
    story.send("createOrganizationKey")
    key = story.send("rotateSigningKey")
    story.send("retireSigningKey", key["kid"])
    webhook = story.send("createWebhook")
    story.send("updateWebhook", webhook["id"])
    member = story.send("addOrganizationMember")
    story.send("updateOrganizationMember", member["user_id"])
    story.ids["project_id"] = story.send("createProject")["id"]
    story.send("updateProject")
    member = story.send("addProjectMember")
    story.send("updateProjectMember", member["user_id"])
    story.ids["env_id"] = story.send("createEnvironment")["id"]
    story.send("updateEnvironment")
    policy = {"settings": {"approvals_required": True, "allow_self_approval": True}}
    story.call("PUT", story.environment_path(), policy)


def author(story: Story) -> list[str]:
    """Create a draft, its version in two environments and two config bundles. Return the ids of the bundles."""
    draft = story.send("createDraft")
    story.send("previewDraft", draft["id"])
    version = story.send("promoteDraft", draft["id"])
    story.send("updateDraft", draft["id"])
    first, second = story.ids["env_id"], story.send("createEnvironment", name="second")["id"]
    story.ids["env_id"] = second
    story.send("copyVersion", from_version_id=version["id"])
    story.ids["env_id"] = first
    one = story.send("createConfigBundle", version_id=version["id"])
    other = story.example("createConfigBundle", version_id=version["id"], name="another") | {"wait": "spin"}
    two = story.call("POST", story.environment_path() + "/config-bundles", other)
    return [one["id"], two["id"]]


def enroll(story: Story) -> Any:
    """Enroll an agent, send its first heartbeat and return it."""
    token = story.send("createEnrollmentToken")["token"]
    agent = story.send("enrollAgent", token=token)
    story.send("updateAgent", agent["agent_id"])
    story.send("labelAgents")
    story.send("drainAgent", agent["agent_id"])
    story.send("undrainAgent", agent["agent_id"])
    story.send("rotateAgentKey", agent["agent_id"])
    agent["api_key"] = story.call("POST", f"/api/v1/agents/{agent['agent_id']}/rotate-key", token=agent["api_key"])[
        "token"
    ]
    story.send("sendHeartbeat", agent["agent_id"], token=agent["api_key"])
    return agent


def deploy(story: Story, agent: Any, bundle: str) -> tuple[str, Any]:
    """Create and approve a deployment, wait for its offer, and return its id and the offer."""
    deployment = story.send("createDeployment", config_bundle_id=bundle)["id"]
    story.send("decideApproval", deployment_id=deployment)
    return deployment, story.await_offer(agent, deployment)


def release(story: Story, agent: Any, bundles: list[str]) -> None:
    """Run three deployments: one succeeds, one fails and is retried and rolled back, one is aborted."""

    def report(deployment: str, offer: Any, **values: Any) -> None:
        values |= {"deployment_id": deployment, "bundle_hash": offer["bundle_hash"]}
        story.send("reportDeployment", agent["agent_id"], token=agent["api_key"], **values)

    first, offer = deploy(story, agent, bundles[0])
    story.send("pauseDeployment", first)
    story.send("resumeDeployment", first)
    report(first, offer)
    story.await_status(f"/deployments/{first}", "active")

    second, offer = deploy(story, agent, bundles[1])
    report(second, offer, status="failed")
    story.await_status(f"/deployments/{second}", "failed")
    story.send("clearConfigBundle", bundles[1])
    story.send("retryDeployment", second, agents=[agent["agent_id"]])
    report(second, story.await_offer(agent, second))
    story.await_status(f"/deployments/{second}", "active")
    story.send("rollBackDeployment", second)
    report(second, story.await_offer(agent, second, action="rollback"), status="rolled_back")
    story.await_status(f"/deployments/{second}", "rolled_back")

    third = story.send("createDeployment", config_bundle_id=bundles[0])["id"]
    story.send("abortDeployment", third)


def replay(story: Story, agent: Any) -> None:
    """Upload a capture and replay it through the version that produced it."""
    story.upload(agent, b"a telemetry snapshot")
    draft = story.call("POST", story.environment_path() + "/drafts", {"name": "captured", "plan": RING})
    story.call("POST", story.environment_path() + f"/drafts/{draft['id']}/version", {})
    artifact = story.upload(agent, INCIDENT, kind="incident_bundle")
    story.await_status(f"/artifacts/{artifact['id']}", "verified")
    replay = story.send("replayArtifact", artifact["id"])
    story.send("cancelReplay", replay["id"], reason="No longer needed")
    later = {**RING, "single_ring": {**RING["single_ring"], "stages": [{"id": "later", "op": "identity"}]}}
    draft = story.call("POST", story.environment_path() + "/drafts", {"name": "later", "plan": later})
    story.call("POST", story.environment_path() + f"/drafts/{draft['id']}/version", {})
    story.send("bisectArtifact", artifact["id"])
