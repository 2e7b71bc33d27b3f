"""Who may call each operation of the API, and see and do what in the console: the one table of both.

It is written down from the contract, and never read from the code under test. The access laws (``tests/laws`` and
``tests/browser/test_access.py``) fail for an operation, a table, an act or a page that has no row here. An act that
does what an operation does needs what the operation needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from apps.tenancy.permissions import Permission, Role

P = Permission
VIEW, OPERATE, MANAGE = P.VIEW_ENVIRONMENT, P.OPERATE_ENVIRONMENT, P.MANAGE_ENVIRONMENT
PROJECT, ADMIN = P.MANAGE_PROJECT, P.MANAGE_ORG_MEMBERSHIPS

# The roles and permissions of the contract. Creating a project belongs to those who manage the organization.
_VIEWER = {P.VIEW_ORG, P.VIEW_PROJECT, VIEW}
_OPERATOR = _VIEWER | {P.OPERATE_PROJECT, OPERATE}
_PROJECT_ADMIN = _OPERATOR | {PROJECT, MANAGE}
MATRIX: dict[Role, set[Permission]] = {  # the least role first
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: _OPERATOR,
    Role.PROJECT_ADMIN: _PROJECT_ADMIN,
    Role.ORG_ADMIN: _PROJECT_ADMIN | {ADMIN, P.CREATE_PROJECT},
}


class NoRole(StrEnum):
    """Who may call an operation that needs no role."""

    ANYBODY = "anybody, without a credential"
    SIGNED_IN = "a person or an organization key"
    PERSON = "a person"
    ENROLLMENT_TOKEN = "an enrollment token"
    AGENT = "the agent itself"


OPERATIONS: dict[str, Permission | NoRole] = {
    "checkLiveness": NoRole.ANYBODY,
    "checkReadiness": NoRole.ANYBODY,
    "scrapeMetrics": NoRole.ANYBODY,
    "startSignIn": NoRole.ANYBODY,
    "finishSignIn": NoRole.ANYBODY,
    "getCaller": NoRole.SIGNED_IN,
    "getPlanSchema": NoRole.SIGNED_IN,
    "listUserTokens": NoRole.PERSON,
    "createUserToken": NoRole.PERSON,
    "revokeUserToken": NoRole.PERSON,
    "listOrganizations": NoRole.SIGNED_IN,
    "createOrganization": NoRole.PERSON,
    "getUsage": P.VIEW_ORG,
    "getOrganization": P.VIEW_ORG,
    "updateOrganization": ADMIN,
    "listOrganizationMembers": P.VIEW_ORG,
    "addOrganizationMember": ADMIN,
    "updateOrganizationMember": ADMIN,
    "removeOrganizationMember": ADMIN,
    "listOrganizationKeys": ADMIN,
    "createOrganizationKey": ADMIN,
    "revokeOrganizationKey": ADMIN,
    "listSigningKeys": P.VIEW_ORG,
    "rotateSigningKey": ADMIN,
    "retireSigningKey": ADMIN,
    "listAuditEvents": ADMIN,
    "exportAuditEvents": ADMIN,
    "listWebhooks": ADMIN,
    "createWebhook": ADMIN,
    "getWebhook": ADMIN,
    "updateWebhook": ADMIN,
    "deleteWebhook": ADMIN,
    "rotateWebhookSecret": ADMIN,
    "testWebhook": ADMIN,
    "listWebhookDeliveries": ADMIN,
    "redeliverWebhookDelivery": ADMIN,
    "listProjects": P.VIEW_ORG,
    "createProject": ADMIN,
    "getProject": P.VIEW_PROJECT,
    "updateProject": PROJECT,
    "deleteProject": PROJECT,
    "listProjectMembers": P.VIEW_PROJECT,
    "addProjectMember": PROJECT,
    "updateProjectMember": PROJECT,
    "removeProjectMember": PROJECT,
    "listEnvironments": P.VIEW_PROJECT,
    "createEnvironment": PROJECT,
    "getEnvironment": VIEW,
    "updateEnvironment": MANAGE,
    "deleteEnvironment": PROJECT,
    "listDrafts": VIEW,
    "createDraft": OPERATE,
    "getDraft": VIEW,
    "updateDraft": OPERATE,
    "deleteDraft": OPERATE,
    "diffDraft": VIEW,
    "previewDraft": OPERATE,
    "promoteDraft": OPERATE,
    "listVersions": VIEW,
    "copyVersion": OPERATE,
    "getVersion": VIEW,
    "getVersionSpec": VIEW,
    "diffVersions": VIEW,
    "drawVersion": VIEW,
    "listConfigBundles": VIEW,
    "createConfigBundle": OPERATE,
    "getConfigBundle": VIEW,
    "clearConfigBundle": OPERATE,
    "listEnrollmentTokens": MANAGE,
    "createEnrollmentToken": MANAGE,
    "revokeEnrollmentToken": MANAGE,
    "listAgents": VIEW,
    "enrollAgent": NoRole.ENROLLMENT_TOKEN,
    "getAgent": VIEW,
    "updateAgent": OPERATE,
    "decommissionAgent": OPERATE,
    "labelAgents": OPERATE,
    "rotateAgentKey": OPERATE,
    "drainAgent": OPERATE,
    "undrainAgent": OPERATE,
    "explainAgent": VIEW,
    "listAgentHistory": VIEW,
    "getAgentSummary": VIEW,
    "listFleetState": VIEW,
    "listDeployments": VIEW,
    "createDeployment": OPERATE,
    "getDeployment": VIEW,
    "rollBackDeployment": OPERATE,
    "pauseDeployment": OPERATE,
    "resumeDeployment": OPERATE,
    "abortDeployment": OPERATE,
    "retryDeployment": OPERATE,
    "exportDeploymentEvidence": OPERATE,
    "listDeploymentAgents": VIEW,
    "listDeploymentTimeline": VIEW,
    "listApprovals": VIEW,
    "decideApproval": OPERATE,
    "getApproval": VIEW,
    "revokeApproval": OPERATE,
    "listArtifacts": VIEW,
    "getArtifact": VIEW,
    "downloadArtifact": OPERATE,
    "listArtifactFiles": OPERATE,
    "readArtifactJournal": OPERATE,
    "replayArtifact": OPERATE,
    "bisectArtifact": OPERATE,
    "listBisects": VIEW,
    "getBisect": VIEW,
    "listReplays": VIEW,
    "getReplay": VIEW,
    "cancelReplay": OPERATE,
    "compareReplays": OPERATE,
    "traceRecord": OPERATE,
    "getOwnAgent": NoRole.AGENT,
    "sendHeartbeat": NoRole.AGENT,
    "uploadArtifact": NoRole.AGENT,
    "getAgentDeployment": NoRole.AGENT,
    "reportDeployment": NoRole.AGENT,
    "downloadDeployBundle": NoRole.AGENT,
    "getSigningKeys": NoRole.AGENT,
    "rotateOwnKey": NoRole.AGENT,
}
# What is needed in addition in an environment with the posture prod.
ON_PROD: dict[str, Permission] = {"labelAgents": MANAGE}
# What is needed in addition if the request asks for this.
FURTHER: dict[tuple[str, str], Permission] = {
    ("createEnvironment", "looser settings than the defaults"): ADMIN,
    ("updateEnvironment", "looser settings"): ADMIN,
    ("updateAgent", "other labels, in prod"): MANAGE,
    ("createDeployment", "override_freeze"): ADMIN,
    ("createDeployment", "break_glass"): ADMIN,
}
# The scope that an agent key needs.
AGENT_SCOPES: dict[str, str] = {
    "sendHeartbeat": "agent:heartbeat",
    "uploadArtifact": "agent:artifact_upload",
    "getAgentDeployment": "agent:deployment",
    "reportDeployment": "agent:deployment",
    "downloadDeployBundle": "agent:deployment",
    "getSigningKeys": "agent:signing_key",
}


def needed(operation: str) -> Permission | None:
    """Return the permission that the operation needs. None: no role is needed."""
    needs = OPERATIONS[operation]
    return needs if isinstance(needs, Permission) else None


def weaker(permission: Permission | None) -> list[Permission]:
    """Return the permissions that more roles hold, one for each set of roles."""

    def holders(each: Permission | None) -> frozenset[Role]:
        return frozenset(role for role, held in MATRIX.items() if each in held)

    found = {holders(each): each for each in Permission if holders(each) > holders(permission)}
    return list(found.values())


# Who sees a row of a table: the permission that is needed where the row belongs; None: only installation operators.
SEES: dict[str, Permission | str | None] = {
    "tenancy.organization": needed("getOrganization"),
    "tenancy.project": needed("getProject"),
    "tenancy.environment": needed("getEnvironment"),
    "tenancy.membership": "members",
    "tenancy.user": "people",
    "tenancy.usertoken": "own",
    "tenancy.organizationkey": needed("listOrganizationKeys"),
    "tenancy.signingkey": needed("listSigningKeys"),
    "tenancy.webhook": needed("listWebhooks"),
    "tenancy.webhookdelivery": needed("listWebhookDeliveries"),
    "tenancy.auditevent": needed("listAuditEvents"),
    "tenancy.auditseal": ADMIN,
    "tenancy.denialcount": ADMIN,
    "tenancy.signinlink": None,
    "tenancy.idempotencykey": None,
    "tenancy.ratecounter": None,
    "pipelines.draft": needed("listDrafts"),
    "pipelines.version": needed("listVersions"),
    "fleet.agent": needed("listAgents"),
    "fleet.agentkey": VIEW,
    "fleet.enrollmenttoken": needed("listEnrollmentTokens"),
    "fleet.heartbeat": VIEW,
    "fleet.assignment": VIEW,
    "releases.approval": needed("listApprovals"),
    "releases.approvaldecision": VIEW,
    "releases.configbundle": needed("listConfigBundles"),
    "releases.deployment": needed("listDeployments"),
    "releases.deploymentagent": needed("listDeploymentAgents"),
    "releases.agentreport": VIEW,
    "releases.timelineentry": needed("listDeploymentTimeline"),
    "releases.knownbad": VIEW,
    "artifacts.artifact": needed("listArtifacts"),
    "artifacts.replay": needed("listReplays"),
    "artifacts.bisect": needed("listBisects"),
    "artifacts.unreferencedblob": None,
    "procrastinate.procrastinatejob": VIEW,
}

OPERATORS_ONLY = {label for label, needs in SEES.items() if needs is None}  # of the installation

_NAME, _LIFETIME = {"name": "made by the law"}, {"expires_in_s": "3600"}
_INVITATION = {"email": "new@acme.example", "role": "viewer"}
_REASON = {"comment": "because"}


@dataclass(frozen=True)
class ActRule:
    """The permission that an act needs where its row belongs, and a valid form of it. None: whoever sees the row."""

    needs: Permission | None
    values: Mapping[str, str] = field(default_factory=dict)
    on_prod: Permission | None = None  # needed in addition in an environment with the posture prod
    in_organization: Permission | None = None  # needed in addition on a row of an organization itself
    only_self: bool = False
    only_operators: bool = False  # of the installation
    on_page: bool = True  # whether the row's page offers the act


ACTS: dict[tuple[str, str], ActRule] = {
    ("tenancy.organization", "create_project"): ActRule(needed("createProject"), _NAME),
    ("tenancy.organization", "invite"): ActRule(needed("addOrganizationMember"), _INVITATION),
    ("tenancy.organization", "create_key"): ActRule(
        needed("createOrganizationKey"), {**_NAME, **_LIFETIME, "role": "viewer", "project_id": ""}
    ),
    ("tenancy.organization", "rotate_signing_key"): ActRule(needed("rotateSigningKey"), on_page=False),
    ("tenancy.organization", "rotate_signing_key_at_once"): ActRule(needed("rotateSigningKey"), on_page=False),
    ("tenancy.organization", "set_quotas"): ActRule(None, {"agents": "5"}, only_operators=True),
    ("tenancy.project", "create_environment"): ActRule(needed("createEnvironment"), {**_NAME, "posture": "dev"}),
    ("tenancy.project", "invite"): ActRule(needed("addProjectMember"), _INVITATION),
    ("tenancy.project", "delete"): ActRule(needed("deleteProject")),
    ("tenancy.environment", "create_enrollment_token"): ActRule(
        needed("createEnrollmentToken"), {**_LIFETIME, "max_uses": "2", "labels": ""}
    ),
    ("tenancy.environment", "settings"): ActRule(needed("updateEnvironment"), {"agent_timeout_s": "700"}),
    ("tenancy.environment", "delete"): ActRule(needed("deleteEnvironment")),
    ("tenancy.membership", "change_role"): ActRule(
        needed("updateProjectMember"), {"role": "operator"}, in_organization=needed("updateOrganizationMember")
    ),
    ("tenancy.membership", "remove"): ActRule(
        needed("removeProjectMember"), in_organization=needed("removeOrganizationMember")
    ),
    ("tenancy.user", "create_token"): ActRule(needed("createUserToken"), {**_NAME, **_LIFETIME}, only_self=True),
    ("tenancy.user", "create_organization"): ActRule(needed("createOrganization"), _NAME, only_self=True),
    ("tenancy.usertoken", "revoke"): ActRule(needed("revokeUserToken")),
    ("tenancy.organizationkey", "revoke"): ActRule(needed("revokeOrganizationKey")),
    ("tenancy.signingkey", "retire"): ActRule(needed("retireSigningKey"), _REASON),
    ("tenancy.webhook", "test"): ActRule(needed("testWebhook")),
    ("tenancy.webhookdelivery", "redeliver"): ActRule(needed("redeliverWebhookDelivery")),
    ("fleet.agent", "drain"): ActRule(needed("drainAgent")),
    ("fleet.agent", "undrain"): ActRule(needed("undrainAgent")),
    ("fleet.agent", "relabel"): ActRule(needed("labelAgents"), {"comment": "zone=b"}, on_prod=ON_PROD["labelAgents"]),
    ("fleet.agent", "rotate_key"): ActRule(needed("rotateAgentKey")),
    ("fleet.agent", "revoke"): ActRule(needed("decommissionAgent")),
    ("fleet.agentkey", "revoke"): ActRule(OPERATE),
    ("fleet.enrollmenttoken", "revoke"): ActRule(needed("revokeEnrollmentToken")),
    ("releases.approval", "approve"): ActRule(needed("decideApproval")),
    ("releases.approval", "deny"): ActRule(needed("decideApproval"), _REASON),
    ("releases.approval", "revoke"): ActRule(needed("revokeApproval")),
    ("releases.configbundle", "clear"): ActRule(needed("clearConfigBundle"), _REASON),
    # The page of a deployment has the form of its approval, which sends to the approval's own address.
    ("releases.deployment", "approve"): ActRule(needed("decideApproval"), on_page=False),
    ("releases.deployment", "deny"): ActRule(needed("decideApproval"), _REASON, on_page=False),
    ("releases.deployment", "roll_back"): ActRule(needed("rollBackDeployment"), _REASON),
    ("releases.deployment", "retry"): ActRule(needed("retryDeployment")),
    ("releases.deploymentagent", "retry"): ActRule(needed("retryDeployment")),
    ("releases.deployment", "pause"): ActRule(needed("pauseDeployment")),
    ("releases.deployment", "resume"): ActRule(needed("resumeDeployment")),
    ("releases.deployment", "abort"): ActRule(needed("abortDeployment")),
    ("artifacts.artifact", "replay"): ActRule(needed("replayArtifact")),
    ("artifacts.artifact", "execute"): ActRule(needed("replayArtifact")),
    ("artifacts.artifact", "bisect"): ActRule(needed("bisectArtifact")),
    # The page offers this once the replay has ended.
    ("artifacts.replay", "again"): ActRule(needed("replayArtifact"), on_page=False),
    ("artifacts.replay", "other"): ActRule(needed("replayArtifact")),
    ("artifacts.replay", "bisect"): ActRule(needed("bisectArtifact")),
    ("artifacts.replay", "cancel"): ActRule(needed("cancelReplay")),
    ("procrastinate.procrastinatejob", "retry"): ActRule(OPERATE),
}


@dataclass(frozen=True)
class PageRule:
    """A page that the admin site does not have by itself: its row's table, the operation it is for, its methods."""

    table: str  # empty: the page belongs to no row, and needs the permission anywhere
    operation: str
    methods: tuple[str, ...] = ("GET",)
    query: str = ""

    @property
    def needs(self) -> Permission:
        """The permission that the page needs where its row belongs."""
        return Permission(OPERATIONS[self.operation])


_FORM = ("GET", "POST")
PAGES: dict[str, PageRule] = {
    "pipelines_draft_new": PageRule("", "createDraft", _FORM),
    "pipelines_draft_edit": PageRule("pipelines.draft", "getDraft"),
    "pipelines_draft_preview": PageRule("pipelines.draft", "previewDraft", ("POST",)),
    "pipelines_draft_save": PageRule("pipelines.draft", "updateDraft", ("POST",), "?revision=1"),
    "pipelines_draft_promote": PageRule("pipelines.draft", "promoteDraft", ("POST",), "?revision=1"),
    "pipelines_version_graph": PageRule("pipelines.version", "drawVersion"),
    "pipelines_version_compare": PageRule("pipelines.version", "diffVersions"),
    "releases_configbundle_new": PageRule("pipelines.version", "createConfigBundle", _FORM),
    "releases_configbundle_choose": PageRule("tenancy.environment", "createDeployment"),
    "releases_configbundle_deploy": PageRule("releases.configbundle", "createDeployment", _FORM),
    "artifacts_artifact_content": PageRule("artifacts.artifact", "downloadArtifact"),
}
# Pages of the site itself: each shows everybody what the tables above permit.
SITE_PAGES = {
    "index", "login", "logout", "password_change", "password_change_done", "autocomplete", "jsi18n", "search",
    "app_list", "records", "start",
}  # fmt: skip
ROW_PAGES = ("changelist", "add", "history", "delete", "change", "act", "choice", "live")
