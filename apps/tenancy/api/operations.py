"""The operations of tenancy in the OpenAPI document."""

from __future__ import annotations

from byteor_cloud.api.operations import Operation, Operations, Tag

LOGIN = Operations(
    Tag.AUTHENTICATION,
    {
        "get": Operation(
            "startSignIn",
            "Start signing in",
            "Redirects to the identity provider (OpenID Connect). Answers 503 when no provider is configured.",
        ),
    },
)
CALLBACK = Operations(
    Tag.AUTHENTICATION,
    {
        "get": Operation(
            "finishSignIn",
            "Finish signing in",
            "The identity provider redirects here with an authorization code. A browser gets a session of the "
            "console, any other client gets a user token.",
        ),
    },
)
ME = Operations(
    Tag.AUTHENTICATION,
    {
        "retrieve": Operation(
            "getCaller",
            "Show the caller",
            "Returns the person who the credential belongs to, the credential itself without its secret, and the "
            "credential's roles. Use it to test a credential.",
        ),
    },
)
TOKEN = Operations(
    Tag.AUTHENTICATION,
    {
        "list": Operation(
            "listUserTokens",
            "List your user tokens",
            "Returns the caller's own user tokens, newest first, including revoked and expired ones. Secrets are "
            "never shown again.",
        ),
        "create": Operation(
            "createUserToken",
            "Create a user token",
            "Creates a token with all of the caller's roles. The response is the only one that contains the secret "
            "(`token`).",
            example={"name": "laptop"},
        ),
        "destroy": Operation(
            "revokeUserToken",
            "Revoke a user token",
            "Revokes the token. It is refused within one second.",
        ),
    },
)
ORGANIZATION_COLLECTION = Operations(
    Tag.ORGANIZATIONS,
    {
        "list": Operation(
            "listOrganizations",
            "List organizations",
            "Returns the organizations in which the caller has a role, newest first.",
        ),
        "create": Operation(
            "createOrganization",
            "Create an organization",
            "Creates an organization. The caller becomes its first `org_admin`. Needs a user token.",
            example={"name": "Acme"},
        ),
    },
)
ORGANIZATION_DETAIL = Operations(
    Tag.ORGANIZATIONS,
    {
        "retrieve": Operation(
            "getOrganization",
            "Get an organization",
            "Returns the organization with all its settings, including defaults.",
        ),
        "update": Operation(
            "updateOrganization",
            "Update an organization",
            "Changes the fields in the body and keeps the others. In `settings`, each key that you send is changed, "
            "and the other keys are kept.",
            example={"settings": {"token_max_days": 30}},
        ),
    },
)
USAGE = Operations(
    Tag.ORGANIZATIONS,
    {
        "usage": Operation(
            "getUsage",
            "Get quotas and usage of an organization",
            "Returns the quotas of the organization, what it uses now, and what it used in each of the last months. "
            "Whatever would exceed a quota is refused with 409: the type is `urn:byteor:problem:quota.NAME`, and "
            "`limit` and `used` say why. Reads, heartbeats, reports, rollbacks and deletions always work.",
        ),
    },
)
ORGANIZATION_MEMBER = Operations(
    Tag.ORGANIZATIONS,
    {
        "list": Operation(
            "listOrganizationMembers",
            "List members of an organization",
            "Returns the people with a role in the whole organization. A project can give a person another role.",
        ),
        "create": Operation(
            "addOrganizationMember",
            "Add a member to an organization",
            "Gives a role in the whole organization to the person with this e-mail address. A person without an "
            "account becomes a member at their first sign-in with that verified address.",
            example={"email": "ada@example.com", "role": "viewer"},
        ),
        "update": Operation(
            "updateOrganizationMember",
            "Change a member's role in an organization",
            "Changes the role. The last `org_admin` of an organization cannot be given another role.",
            example={"role": "operator"},
        ),
        "destroy": Operation(
            "removeOrganizationMember",
            "Remove a member from an organization",
            "Removes the person's role in the organization. The person's roles in single projects are kept. The last "
            "`org_admin` cannot be removed.",
        ),
    },
)
ORGANIZATION_KEY = Operations(
    Tag.ORGANIZATION_KEYS,
    {
        "list": Operation(
            "listOrganizationKeys",
            "List organization API keys",
            "Returns the organization's API keys, newest first, including revoked and expired ones. Secrets are never "
            "shown again.",
        ),
        "create": Operation(
            "createOrganizationKey",
            "Create an organization API key",
            "Creates a key for scripts, with one role in the organization or in one project. The response is the "
            "only one that contains the secret (`token`).",
            example={"name": "ci", "role": "operator"},
        ),
        "destroy": Operation(
            "revokeOrganizationKey",
            "Revoke an organization API key",
            "Revokes the key. It is refused within one second.",
        ),
    },
)
AUDIT_EVENT = Operations(
    Tag.AUDIT,
    {
        "list": Operation(
            "listAuditEvents",
            "List audit events",
            "Returns the state changes, denials and sign-ins of the organization, newest first. Events are "
            "append-only.",
        ),
        "export": Operation(
            "exportAuditEvents",
            "Export the audit ledger",
            "Returns the sealed audit events as newline-delimited JSON, oldest first. The last line is a signed "
            "checkpoint; `byteor-verify ledger` checks the export offline.",
        ),
    },
)
SIGNING_KEY = Operations(
    Tag.SIGNING_KEYS,
    {
        "list": Operation(
            "listSigningKeys",
            "List signing keys",
            "Returns the organization's signing keys with their validity. Private keys are never shown and are "
            "destroyed when a key is retired.",
        ),
        "rotate": Operation(
            "rotateSigningKey",
            "Rotate the signing key",
            "Publishes a new key. The new key begins to sign when the agents have had time to fetch it. The previous "
            "key still verifies after that.",
            example={"activate_in_s": 3600},
        ),
        "retire": Operation(
            "retireSigningKey",
            "Retire a signing key",
            "Retires a `retiring` key now, or withdraws the `next` key. Signatures that a retired key made before "
            "still verify.",
            example={"reason": "The key is no longer needed."},
        ),
    },
)
WEBHOOK = Operations(
    Tag.WEBHOOKS,
    {
        "list": Operation(
            "listWebhooks",
            "List webhooks",
            "Returns the organization's webhook subscriptions, newest first.",
        ),
        "create": Operation(
            "createWebhook",
            "Create a webhook",
            "Subscribes a URL to events of deployments and approvals. Deliveries are signed as Standard Webhooks "
            "describes. The response is the only one that contains the secret (`token`).",
            example={"url": "https://hooks.example.com/byteor", "events": ["deployment.*"]},
        ),
        "retrieve": Operation(
            "getWebhook",
            "Get a webhook",
            "Returns one webhook subscription, without its secret.",
        ),
        "update": Operation(
            "updateWebhook",
            "Update a webhook",
            "Changes the fields in the body and keeps the others. Enabling a disabled webhook starts its deliveries "
            "again.",
            example={"events": ["*"]},
        ),
        "destroy": Operation(
            "deleteWebhook",
            "Delete a webhook",
            "Deletes the webhook. Deliveries that are waiting are not sent.",
        ),
        "test": Operation(
            "testWebhook",
            "Send a test event to a webhook",
            "Sends an event of type `ping`. The result appears in the list of deliveries.",
        ),
        "rotate_secret": Operation(
            "rotateWebhookSecret",
            "Rotate a webhook's secret",
            "Returns a new secret. For 24 hours, each delivery is signed with both the new and the previous secret, "
            "so that receivers can change to the new one without losing a delivery.",
        ),
    },
)
WEBHOOK_DELIVERY = Operations(
    Tag.WEBHOOKS,
    {
        "list": Operation(
            "listWebhookDeliveries",
            "List deliveries of a webhook",
            "Returns the events sent to this webhook and the result of each attempt, newest first. Deliveries are "
            "kept for 30 days.",
        ),
        "redeliver": Operation(
            "redeliverWebhookDelivery",
            "Repeat a delivery",
            "Sends the event again with the same `webhook-id`, so that a receiver can recognize a duplicate.",
        ),
    },
)
PROJECT_COLLECTION = Operations(
    Tag.PROJECTS,
    {
        "list": Operation(
            "listProjects",
            "List projects",
            "Returns the projects of the organization that the caller may see, newest first.",
        ),
        "create": Operation(
            "createProject",
            "Create a project",
            "Creates a project in the organization.",
            example={"name": "markets"},
        ),
    },
)
PROJECT_DETAIL = Operations(
    Tag.PROJECTS,
    {
        "retrieve": Operation(
            "getProject",
            "Get a project",
            "Returns one project.",
        ),
        "update": Operation(
            "updateProject",
            "Update a project",
            "Changes the fields in the body and keeps the others.",
            example={"name": "markets-eu"},
        ),
        "destroy": Operation(
            "deleteProject",
            "Delete a project",
            "Deletes the project and everything in it. The project disappears at once for every caller, and the keys "
            "of its agents are refused. Audit events stay with the organization.",
        ),
    },
)
PROJECT_MEMBER = Operations(
    Tag.PROJECTS,
    {
        "list": Operation(
            "listProjectMembers",
            "List members of a project",
            "Returns the people who have a role in this project. In this project, that role applies instead of the "
            "person's role in the organization.",
        ),
        "create": Operation(
            "addProjectMember",
            "Add a member to a project",
            "Gives the person with this e-mail address a role in this project only.",
            example={"email": "ada@example.com", "role": "viewer"},
        ),
        "update": Operation(
            "updateProjectMember",
            "Change a member's role in a project",
            "Replaces the person's role in this project.",
            example={"role": "operator"},
        ),
        "destroy": Operation(
            "removeProjectMember",
            "Remove a member from a project",
            "Removes the person's role in this project. If the person has a role in the organization, that role "
            "applies again.",
        ),
    },
)
ENVIRONMENT_COLLECTION = Operations(
    Tag.ENVIRONMENTS,
    {
        "list": Operation(
            "listEnvironments",
            "List environments",
            "Returns the project's environments, newest first.",
        ),
        "create": Operation(
            "createEnvironment",
            "Create an environment",
            "Creates an environment. The posture is fixed at creation and decides the defaults of the settings.",
            example={"name": "canary", "posture": "staging"},
        ),
    },
)
ENVIRONMENT_DETAIL = Operations(
    Tag.ENVIRONMENTS,
    {
        "retrieve": Operation(
            "getEnvironment",
            "Get an environment",
            "Returns the environment with all its settings, including defaults.",
        ),
        "update": Operation(
            "updateEnvironment",
            "Update an environment",
            "Changes the fields in the body and keeps the others. In `settings`, each key that you send is changed, "
            "and the other keys are kept. Loosening approvals, replay or freeze windows of a `staging` or `prod` "
            "environment needs `org_admin`.",
            example={"settings": {"heartbeat_interval_s": 10}},
        ),
        "destroy": Operation(
            "deleteEnvironment",
            "Delete an environment",
            "Deletes the environment and everything in it. The environment disappears at once for every caller, and "
            "the keys of its agents are refused. Audit events stay with the organization.",
        ),
    },
)
