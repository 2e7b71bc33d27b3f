"""The operations of releases in the OpenAPI document."""

from __future__ import annotations

from byteor_cloud.api.operations import HASH, ID, Operation, Operations, Tag

CONFIG_BUNDLE = Operations(
    Tag.CONFIG_BUNDLES,
    {
        "list": Operation(
            "listConfigBundles",
            "List config bundles",
            "Returns the environment's config bundles, newest first.",
        ),
        "create": Operation(
            "createConfigBundle",
            "Create a config bundle",
            "Joins a version with its runtime configuration. The bundle is immutable; `config_hash` identifies its "
            "content.",
            example={"name": "trades-1", "version_id": ID},
        ),
        "retrieve": Operation(
            "getConfigBundle",
            "Get a config bundle",
            "Returns one config bundle.",
        ),
        "clear": Operation(
            "clearConfigBundle",
            "Clear a known bad config bundle",
            "Allows a configuration that failed in this environment to be deployed again. You must give a reason, "
            "which is stored in the audit ledger.",
            example={"reason": "The disk of the host was full."},
        ),
    },
)
LABELS = Operations(
    Tag.AGENTS,
    {
        "change": Operation(
            "labelAgents",
            "Change the labels of many agents",
            "Changes the labels of all agents that match the selector, in one transaction. Agents that come to match "
            "the target of a current deployment are offered it; so on a prod environment this needs the permission to "
            "manage it. Try it with `dry_run` first. Agents that no longer match keep what they run.",
            example={"selector": {"zone": "eu-1"}, "set": {"ring": "canary"}, "unset": ["trial"], "dry_run": True},
        ),
    },
)
EXPLANATION = Operations(
    Tag.AGENTS,
    {
        "retrieve": Operation(
            "explainAgent",
            "Explain what an agent runs",
            "Says why the agent runs what it runs, and what happens next: the main reason first, and the soonest "
            "event first. This also works for an agent that has left the fleet.",
        ),
    },
)
HISTORY = Operations(
    Tag.AGENTS,
    {
        "list": Operation(
            "listAgentHistory",
            "List what an agent ran",
            "Returns the times in which the agent ran each bundle, newest first, with the deployment and the approval "
            "behind it. Works for an agent that left the fleet, too. Times in which it ran nothing are left out. A new "
            "entry is made when a heartbeat names another bundle: at most 1,000 a day. Entries are kept for a year.",
        ),
    },
)
FLEET_STATE = Operations(
    Tag.AGENTS,
    {
        "list": Operation(
            "listFleetState",
            "List what the fleet ran at a time",
            "Returns what each agent of the environment ran at one moment, with the deployment and the approval behind "
            "it. Agents that left the fleet since are included, agents that ran nothing are not. `confirmed_until` "
            "says how long heartbeats confirmed it.",
        ),
    },
)
AGENT_SUMMARY = Operations(
    Tag.AGENTS,
    {
        "retrieve": Operation(
            "getAgentSummary",
            "Get a summary of the agents",
            "Returns how many agents the environment has, in all and by liveness, drift, status, running version and "
            "label.",
        ),
    },
)
AGENT_DEPLOYMENT = Operations(
    Tag.AGENTS,
    {
        "retrieve": Operation(
            "getAgentDeployment",
            "Get the agent's current offer",
            "Called by an agent. Returns what it should run, with the signed envelope of the deploy bundle.",
        ),
        "report": Operation(
            "reportDeployment",
            "Report progress on an offer",
            "Called by an agent while it downloads, activates or rolls back the offered bundle.",
            example={"deployment_id": ID, "status": "active", "bundle_hash": HASH},
        ),
        "bundle": Operation(
            "downloadDeployBundle",
            "Download the deploy bundle",
            "Called by an agent. Returns the tar whose digest is in the signed envelope. Answers 409 when the agent "
            "should no longer run that bundle.",
        ),
    },
)
DEPLOYMENT = Operations(
    Tag.DEPLOYMENTS,
    {
        "list": Operation(
            "listDeployments",
            "List deployments",
            "Returns the environment's deployments, newest first.",
        ),
        "create": Operation(
            "createDeployment",
            "Create a deployment",
            "Requests that a config bundle runs on a target. The deployment starts as `pending_approval` if the "
            "environment requires approvals, else as `approved`. Refused with `quota.stored_bytes` if the deploy "
            "bundle would exceed the quota of the organization; no later step is refused because of it.",
            example={"config_bundle_id": ID, "target": {"all": True}},
        ),
        "retrieve": Operation(
            "getDeployment",
            "Get a deployment",
            "Returns the deployment with its status, the progress of its agents, and why agents failed.",
        ),
        "abort": Operation(
            "abortDeployment",
            "Abort a deployment",
            "Ends the deployment as `failed` with the reason `aborted`. Agents that already run it keep running it. "
            "To change that, roll the deployment back.",
            example={"reason": "The wrong version was chosen."},
        ),
        "evidence": Operation(
            "exportDeploymentEvidence",
            "Export the evidence of a deployment",
            "Returns a tar with the signed files that show who approved exactly these bytes for this environment: the "
            "bundle, its envelope, the approval credential, the record of the approval and the key set. "
            "`byteor-verify` checks it offline.",
        ),
        "pause": Operation(
            "pauseDeployment",
            "Pause a deployment",
            "Offers the deployment to no further agent until it is resumed. The status does not change.",
            example={"reason": "The market opens in an hour."},
        ),
        "resume": Operation(
            "resumeDeployment",
            "Resume a deployment",
            "Continues a paused deployment.",
            example={"reason": "The market has closed."},
        ),
        "retry": Operation(
            "retryDeployment",
            "Retry a deployment",
            "Offers the deployment again to the agents that failed, or to those of them in `agents`. A deployment that "
            "has failed continues. One that is active and current stays active.",
            example={"reason": "The network is back.", "agents": [ID]},
        ),
        "rollback": Operation(
            "rollBackDeployment",
            "Roll back a deployment",
            "Offers each agent that has the deployment's bundle, or should have it, what the agent ran before. The "
            "configuration that is rolled back becomes known bad.",
            example={"reason": "The latency has doubled."},
        ),
    },
)
DEPLOYMENT_AGENT = Operations(
    Tag.DEPLOYMENTS,
    {
        "list": Operation(
            "listDeploymentAgents",
            "List the agents of a deployment",
            "Returns each agent that the deployment is for, with its wave and its progress.",
        ),
    },
)
TIMELINE = Operations(
    Tag.DEPLOYMENTS,
    {
        "list": Operation(
            "listDeploymentTimeline",
            "List the timeline of a deployment",
            "Returns what happened to the deployment, newest first.",
        ),
    },
)
APPROVAL = Operations(
    Tag.APPROVALS,
    {
        "list": Operation(
            "listApprovals",
            "List approvals",
            "Returns requests for approval with their decisions, newest first.",
        ),
        "create": Operation(
            "decideApproval",
            "Approve or deny",
            "Records the caller's decision on a deployment or an execute replay, and returns the approval. One denial "
            "denies the request. When enough people have approved, the approval credential is issued. Only a person "
            "can decide, not an API key.",
            example={"deployment_id": ID, "decision": "approve"},
        ),
        "retrieve": Operation(
            "getApproval",
            "Get an approval",
            "Returns the approval with its decisions. Callers with the permission `environment:operate` also see "
            "its credential.",
        ),
        "revoke": Operation(
            "revokeApproval",
            "Revoke an approval",
            "Revokes an approval that is pending, or that was given and not used yet.",
        ),
    },
)
