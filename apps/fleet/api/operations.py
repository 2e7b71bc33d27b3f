"""Names and descriptions of the fleet operations in the OpenAPI document."""

from __future__ import annotations

from byteor_cloud.api.operations import Operation, Operations, Tag

AGENT = Operations(
    Tag.AGENTS,
    {
        "list": Operation(
            "listAgents",
            "List agents",
            "Returns the environment's agents, newest first, with the bundle that each should run and the bundle that "
            "it runs.",
        ),
        "create": Operation(
            "enrollAgent",
            "Enroll an agent",
            "Spends one use of an enrollment token and creates an agent. Only this response contains the agent key "
            "(`api_key`).",
            example={"name": "edge-7"},
        ),
        "retrieve": Operation(
            "getAgent",
            "Get an agent",
            "Returns one agent of the environment.",
        ),
        "update": Operation(
            "updateAgent",
            "Update an agent",
            "Changes the agent's name or labels. With new labels the agent may match the target of a running "
            "deployment.",
            example={"labels": {"zone": "eu-1"}},
        ),
        "destroy": Operation(
            "decommissionAgent",
            "Decommission an agent",
            "Revokes the agent's key and removes the agent from the fleet.",
        ),
        "rotate_key": Operation(
            "rotateAgentKey",
            "Rotate an agent's key",
            "Returns a new agent key. The old key is refused at once.",
        ),
    },
)
ENROLLMENT_TOKEN = Operations(
    Tag.AGENTS,
    {
        "list": Operation(
            "listEnrollmentTokens",
            "List enrollment tokens",
            "Returns the environment's enrollment tokens, newest first, including used, revoked and expired ones. "
            "Secrets are never shown again.",
        ),
        "create": Operation(
            "createEnrollmentToken",
            "Create an enrollment token",
            "Creates a token with which hosts enroll in this environment. The response is the only one that "
            "contains the secret (`token`).",
            example={"max_uses": 10},
        ),
        "destroy": Operation(
            "revokeEnrollmentToken",
            "Revoke an enrollment token",
            "Refuses further enrollments with the token. Agents that are already enrolled are not affected.",
        ),
    },
)
OWN_AGENT = Operations(
    Tag.AGENTS,
    {
        "retrieve": Operation(
            "getOwnAgent",
            "Get the agent's own record",
            "Called by an agent with its own key.",
        ),
    },
)
HEARTBEAT = Operations(
    Tag.AGENTS,
    {
        "post": Operation(
            "sendHeartbeat",
            "Send a heartbeat",
            "Called by an agent. Stores the agent's status and returns what the agent should run. A heartbeat that "
            "is answered with 200 is stored durably.",
            example={"status": "healthy", "agent_version": "0.1.0"},
        ),
    },
)
SIGNING_KEY = Operations(
    Tag.AGENTS,
    {
        "retrieve": Operation(
            "getSigningKeys",
            "Get the published signing keys",
            "Called by an agent. Returns the keys with which deploy bundles are verified, as a JSON Web Key Set "
            "with validity times.",
        ),
    },
)
