"""Declarations of operations, written next to the code that handles them, and the sections of the OpenAPI document.

Most texts are docstrings, so Python must not run with ``-OO``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from enum import StrEnum
from inspect import cleandoc
from typing import Any

from byteor_cloud.api.parameters import Parameter
from byteor_cloud.errors import DomainError

type Errors = tuple[type[DomainError], ...]

# Values for examples. Clients replace the id and the hash with those of their own resources.
ID = "01990a5c-7a40-7cc0-8000-3f2b7e5d1c04"
HASH = "sha256:" + "5f" * 32
PLAN = {
    "plan_v": 1,
    "name": "trades",
    "target": "single_ring",
    "single_ring": {
        "ingress": "trades_in",
        "egress": "trades_out",
        "stages": [{"id": "decode", "op": "identity"}],
    },
}


class Tag(StrEnum):
    """The sections of the document, in their order."""

    HEALTH = "Health and observability"
    AUTHENTICATION = "Authentication"
    ORGANIZATIONS = "Organizations"
    PROJECTS = "Projects"
    ENVIRONMENTS = "Environments"
    PIPELINES = "Pipeline drafts and versions"
    CONFIG_BUNDLES = "Config bundles"
    AGENTS = "Agents"
    DEPLOYMENTS = "Deployments"
    ARTIFACTS = "Artifacts and replay"
    APPROVALS = "Approvals"
    ORGANIZATION_KEYS = "Organization API keys"
    SIGNING_KEYS = "Signing keys"
    AUDIT = "Audit"
    WEBHOOKS = "Webhooks"


TAG_DESCRIPTIONS = {
    Tag.HEALTH: "Probes for load balancers and metrics for monitoring. They need no credential.",
    Tag.AUTHENTICATION: (
        "Sign in, get the caller's identity and roles, and manage the caller's own user tokens and notifications."
    ),
    Tag.ORGANIZATIONS: "An organization is the top level of ownership. It owns projects and has members.",
    Tag.PROJECTS: "A project groups environments of one organization.",
    Tag.ENVIRONMENTS: (
        "Agents and deployments belong to an environment. Its posture and settings decide the rules, such as how many "
        "people must approve a deployment."
    ),
    Tag.PIPELINES: "A draft contains a plan that can be edited. Promoting it creates an immutable version.",
    Tag.CONFIG_BUNDLES: "A config bundle combines a version with its runtime configuration.",
    Tag.AGENTS: "Agents enroll with an enrollment token and then authenticate with their own key.",
    Tag.DEPLOYMENTS: "A deployment rolls out a config bundle to agents, after approval if the environment requires it.",
    Tag.ARTIFACTS: (
        "Agents upload artifacts, such as incident captures. A replay runs an incident again through the version that "
        "produced it, or through another one."
    ),
    Tag.APPROVALS: "People approve or deny deployments, waves of deployments, and replays with side effects.",
    Tag.ORGANIZATION_KEYS: "Credentials for scripts that act in an organization.",
    Tag.SIGNING_KEYS: (
        "The Ed25519 keys that sign deploy bundles, approvals, statements about deployments, and checkpoints of the "
        "ledger."
    ),
    Tag.AUDIT: "The audit events of an organization: state changes, denials and sign-ins, sealed in a ledger.",
    Tag.WEBHOOKS: (
        "A webhook sends signed audit events to a program. A chat webhook sends messages to a channel of a Slack or "
        "Mattermost server."
    ),
}

SECURITY_SCHEMES = {
    name: {"type": "http", "scheme": "bearer", "description": description}
    for name, description in {
        "bearer": "A user token (`bor_usr_…`) or an organization API key (`bor_org_…`).",
        "enrollmentToken": "An enrollment token (`bor_enr_…`). It is accepted only for enrolling an agent.",
        "agentKey": "An agent key (`bor_agt_…`). It is accepted only for the agent's own operations.",
    }.items()
}


@dataclass(frozen=True)
class Operation:
    """The declaration of one operation: its texts, who may call it, its body, responses and errors.

    It decorates the method or command that handles the operation: the first line of the docstring is the summary, and
    the rest is the description. Operations that mixins handle are declared in the ``operations`` of the view.
    """

    id: str  # in camelCase, starting with a verb, because generated clients name their functions after it
    needs: StrEnum | None  # the required permission; None if none is required
    summary: str = ""
    description: str = ""
    _: KW_ONLY
    needs_on_prod: StrEnum | None = None  # an additional permission in environments with the posture prod
    credentials: tuple[StrEnum, ...] = ()  # the accepted families, if they differ from the view's
    parameters: Mapping[str, Parameter] = field(default_factory=dict)  # the query parameters by name
    # The serializer of the body. If ``body`` is None, the view's own methods have no body, and mixins use the view's
    # serializer. ``responses`` is the serializer of the response, or the serializers by status. If ``responses`` is
    # None, the response has the view's serializer.
    body: Any = None
    responses: Any = None
    # The errors in addition to those of the view and the mixin, and to those that any request or body can cause.
    errors: Errors = ()
    # A valid body, if the operation has a body. A test sends it.
    example: Mapping[str, Any] | None = None
    # Whether the response can contain a secret. If so, the response is stored under its Idempotency-Key for only ten
    # minutes.
    holds_secret: bool = False
    # Whether a POST accepts an Idempotency-Key, and whether its handler itself stores the response under the key.
    takes_idempotency_key: bool = True
    stores_response: bool = False

    def __call__[**A, R](self, handler: Callable[A, R]) -> Callable[A, R]:
        """Declare the operation that ``handler`` handles."""
        summary, _, description = cleandoc(handler.__doc__ or "").partition("\n\n")
        # Put each paragraph on one line.
        lines = "\n\n".join(paragraph.replace("\n", " ") for paragraph in description.split("\n\n"))
        declared = replace(self, summary=summary.removesuffix("."), description=lines)
        handler.operation = declared  # type: ignore[attr-defined]  # DeclaringView reads the attribute
        return handler
