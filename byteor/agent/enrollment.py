"""The enrollment of an agent, and the connection of an enrolled agent to the control plane."""

from __future__ import annotations

import platform
import re
import uuid
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from byteor.engine.canonical import Fields, Json
from byteor.engine.signing.keys import KeySet

from .api import ControlPlane, enroll
from .identity import VARIABLES, BaseUrl, Credentials, IdentityError, SecretValue
from .key_rotation import KeyRotation
from .retry import Backoff, retry_while_unavailable
from .state_folder import AgentIdentity, StateError, StateFolder, StoredKeySet

_TRIES = 5
_ID = r"[A-Za-z0-9-]+"
_ENVIRONMENT = re.compile(
    rf"(?:(?:/api/v1)?/?orgs/({_ID})/projects/({_ID})/environments/({_ID})(?:/agents)?/?|({_ID})/({_ID})/({_ID}))",
    re.ASCII,
)


def environment_path(text: str, base_url: BaseUrl) -> str:
    """Return the API path of an environment. ``text`` is an API URL, a path, or ``ORG_ID/PROJECT_ID/ENVIRONMENT_ID``.

    Raises IdentityError for any other text, and for a URL on another origin than ``base_url``.
    """
    path = text
    if "://" in text:
        if BaseUrl.parse(text).origin != base_url.origin:
            raise IdentityError("the environment's URL is not on the control plane's origin")
        path = urlsplit(text).path.removeprefix(urlsplit(base_url.text).path)
    match = _ENVIRONMENT.fullmatch(path)
    if match is None:
        raise IdentityError("the environment must be given as its API URL, or as ORG_ID/PROJECT_ID/ENVIRONMENT_ID")
    org, project, environment = filter(None, match.groups())
    return f"/api/v1/orgs/{org}/projects/{project}/environments/{environment}"


def enroll_agent(
    state: StateFolder,
    *,
    base_url: BaseUrl,
    environment: str,
    token: SecretValue,
    name: str | None,
    labels: Mapping[str, str],
    wait: Callable[[float], object],
) -> AgentIdentity:
    """Create an agent in the environment, and return its identity.

    Stores the identity, the agent's key and the organization's published signing keys in the state folder. Retries send
    the same idempotency key, so they count as one use of the token. Raises StateError if ``agent.json`` is unreadable,
    if the folder already belongs to an agent, or if a field of the response is missing or has the wrong type. Raises
    Refused if the signing keys in the response are malformed, IdentityError for invalid input or credentials, and the
    errors of ``Client.send`` if the request fails.
    """
    if (existing := state.identity()) is not None:
        raise StateError(f"{state.folder} already belongs to agent {existing.agent_id}: use another folder")
    body: Json = {"hostname": platform.node(), "labels": dict(labels)}
    if name is not None:
        body["name"] = name
    path, idempotency_key = environment_path(environment, base_url), str(uuid.uuid4())
    created = retry_while_unavailable(
        lambda: enroll(base_url, token, path, body, idempotency_key), wait, Backoff(), _TRIES
    )
    try:
        members = Fields(created)
        credentials = Credentials(base_url, members.text("agent_id"), SecretValue(members.text("api_key")))
        identity = AgentIdentity(
            base_url.text, credentials.agent_id, members.text("environment_id"), members.text("name")
        )
        keys = StoredKeySet(KeySet.from_document(members.object("signing_keys")), etag="")
    except ValueError as error:
        raise StateError(f"the control plane's response is unreadable: {error}") from error
    state.save_api_key(credentials.api_key)
    state.save_keys(keys)
    state.save_identity(identity)  # saved last, because a folder with an identity cannot be enrolled again
    return identity


def connect(
    state: StateFolder, environment: Mapping[str, str], wait: Callable[[float], object], tries: int | None
) -> tuple[ControlPlane, AgentIdentity, KeyRotation]:
    """Return a client for the control plane, this agent's identity, and the rotation of its key.

    The environment variables override the credentials in the state folder. Without these variables, an interrupted key
    rotation is completed or discarded before any other request. Raises IdentityError if the credentials are missing or
    invalid, or belong to another agent than the state folder, StateError if ``agent.json`` is unreadable, and the
    errors of ``Client.send`` if a request fails.
    """
    given = Credentials.from_environment(environment)
    credentials = given or state.credentials()
    if credentials is None:
        raise IdentityError(f"no credentials in {state.folder}: enroll first, or set {', '.join(VARIABLES)}")
    plane = ControlPlane(credentials)
    rotation = KeyRotation(state, plane, stores_key=given is None)
    retry_while_unavailable(rotation.settle, wait, Backoff(), tries)
    identity = state.identity()
    if identity is None:
        identity = retry_while_unavailable(plane.fetch_identity, wait, Backoff(), tries)
        state.save_identity(identity)
    if identity.agent_id != credentials.agent_id:
        raise IdentityError(f"{state.folder} belongs to agent {identity.agent_id}, not {credentials.agent_id}")
    return plane, identity, rotation
