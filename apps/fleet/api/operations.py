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
            "(`api_key`). Refused with `quota.agents` if the organization has as many agents as its quota, unless the "
            "agent replaces another one.",
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
            "deployment. So in an environment with the posture `prod`, other labels need the permission to manage the "
            "environment, and a caller without it gets 403.",
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
            "By default (`mode: now`) returns a new agent key, and the old key is refused at once. With `mode: "
            "by_agent` it answers 202, and the answers to the agent's heartbeats contain the command `rotate_key` "
            "until the agent uses a new key that it fetched with `rotateOwnKey`. While a clone of the agent is "
            "suspected (`clone_suspected_at`), `by_agent` returns 409, because the clone could fetch the new key. A "
            "rotation with `now` by a person clears the suspicion.",
            example={"mode": "by_agent"},
        ),
        "drain": Operation(
            "drainAgent",
            "Drain an agent",
            "Keeps the agent out of new offers, for example while its host is repaired. It keeps what it runs, and "
            "may finish an offer that it has. While it is drained, the agent is in no target: new deployments and "
            "later waves pass it by, a retry does not reach it, and no rollout waits for it. Only a rollback still "
            "reaches it, because that takes back what it was offered before. Liveness and drift are shown as ever.",
            example={"reason": "The disk is replaced."},
        ),
        "undrain": Operation(
            "undrainAgent",
            "Undrain an agent",
            "Lets the agent have new offers again. It is then offered the deployment that is current for it, as "
            "an agent that joins late is.",
            example={"reason": "The new disk is in place."},
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
OWN_KEY = Operations(
    Tag.AGENTS,
    {
        "rotate_own_key": Operation(
            "rotateOwnKey",
            "Fetch a new agent key",
            "Called by an agent with its own key, when a heartbeat's answer contains the command `rotate_key`, or at "
            "any time. Returns a new key with the same scopes. The key that was used for the call ends at the first "
            "use of the new one, or after 24 hours. So store the new key safely before you use it. Another call "
            "before that use returns another new key, and the unused one is revoked. An agent may do this three times "
            "in an hour; after that the answer is 429. A rotation that a person requests grants three more. While a "
            "clone of the agent is suspected, the response is 409: keep the present key, and do not ask again. Only a "
            "person can then replace the key, with `rotateAgentKey` or by enrolling the agent again.",
        ),
    },
)
HEARTBEAT = Operations(
    Tag.AGENTS,
    {
        "send": Operation(
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
