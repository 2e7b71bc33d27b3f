"""Spends an enrollment token, and finds out who an enrolled node is."""

from __future__ import annotations

import platform
import re
import uuid
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from byteor_cloud.engine.delivery.encoding import Fields, Json
from byteor_cloud.engine.delivery.keys import KeySet

from .api import ControlPlane, enroll
from .identity import BaseUrl, Credentials, IdentityError, Secret
from .retry import Backoff, insist
from .state import Node, State, StateError, StoredKeys

_TRIES = 5
_ID = r"[A-Za-z0-9-]+"
_ENVIRONMENT = re.compile(
    rf"(?:(?:/api/v1)?/?orgs/({_ID})/projects/({_ID})/environments/({_ID})(?:/agents)?/?|({_ID})/({_ID})/({_ID}))",
    re.ASCII,
)


def environment_path(text: str, base_url: BaseUrl) -> str:
    """Read an environment's URL or path, or ``ORG/PROJECT/ENVIRONMENT`` ids."""
    path = text
    if "://" in text:
        if BaseUrl.parse(text).origin != base_url.origin:
            raise IdentityError("the environment's URL is not on the control plane's origin")
        path = urlsplit(text).path.removeprefix(urlsplit(base_url.text).path)
    match = _ENVIRONMENT.fullmatch(path)
    if match is None:
        raise IdentityError("the environment must be its URL, or ORG_ID/PROJECT_ID/ENVIRONMENT_ID")
    org, project, environment = filter(None, match.groups())
    return f"/api/v1/orgs/{org}/projects/{project}/environments/{environment}"


def enroll_node(
    state: State,
    *,
    base_url: BaseUrl,
    environment: str,
    token: Secret,
    name: str | None,
    labels: Mapping[str, str],
    wait: Callable[[float], object],
) -> Node:
    """Make this folder an agent of the environment: one token, one agent, also over a bad connection."""
    if (node := state.node()) is not None:
        raise StateError(f"{state.folder} already belongs to agent {node.agent_id}")
    body: Json = {"hostname": platform.node(), "labels": dict(labels)}
    if name is not None:
        body["name"] = name
    path, idempotency_key = environment_path(environment, base_url), str(uuid.uuid4())
    answer = insist(lambda: enroll(base_url, token, path, body, idempotency_key), wait, Backoff(), _TRIES)
    try:
        members = Fields(answer)
        credentials = Credentials(base_url, members.text("agent_id"), Secret(members.text("api_key")))
        node = Node(base_url.text, credentials.agent_id, members.text("environment_id"), members.text("name"))
        keys = StoredKeys(KeySet.of(members.object("signing_keys")), etag="")
    except ValueError as error:
        raise StateError(f"the control plane's answer is unreadable: {error}") from error
    state.save_api_key(credentials.api_key)
    state.save_keys(keys)
    state.save_node(node)  # last: from now on the folder is taken
    return node


def sign_in(
    state: State, environment: Mapping[str, str], wait: Callable[[float], object], tries: int | None
) -> tuple[ControlPlane, Node]:
    """Return the control plane as this node sees it; node variables come before what is stored."""
    credentials = Credentials.from_environment(environment) or state.credentials()
    if credentials is None:
        raise IdentityError(f"no agent in {state.folder}: enroll first, or set the node variables")
    plane = ControlPlane(credentials)
    node = state.node()
    if node is None:
        node = insist(plane.node, wait, Backoff(), tries)
        state.save_node(node)
    if node.agent_id != credentials.agent_id:
        raise IdentityError(f"{state.folder} belongs to agent {node.agent_id}, not {credentials.agent_id}")
    return plane, node
