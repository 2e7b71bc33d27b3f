# Written by tests/clients/write_client.py from docs/openapi.yaml. Do not edit: run `make schema`.
"""The resources of the API, and the values in requests."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType, field

from byteor.client.model import Model


class AcceptedDifference(Model, kw_only=True):
    group: str
    """The id of the group of differences."""
    baseline: str | None
    """The config hash of the baseline from which the candidate differs. Null for golden results."""


class ActiveRequest(Model, kw_only=True):
    """The bundle that the agent runs."""

    deployment_id: str
    """The id of the deployment in the bundle's manifest."""
    bundle_hash: str
    """The SHA-256 of the deploy bundle."""
    spec_hash: str
    """The spec hash of the pipeline."""


class Adapters(Model, kw_only=True):
    ingress: dict[str, Any] | UnsetType = UNSET
    """The adapter that reads records: its `kind`, and the parameters of that kind."""
    egress: dict[str, Any] | UnsetType = UNSET
    """The adapter that writes records: its `kind`, and the parameters of that kind."""


class AdaptersRequest(Model, kw_only=True):
    ingress: dict[str, Any] | UnsetType = UNSET
    """The adapter that reads records: its `kind`, and the parameters of that kind."""
    egress: dict[str, Any] | UnsetType = UNSET
    """The adapter that writes records: its `kind`, and the parameters of that kind."""


class AlsoExpected(Model, kw_only=True):
    config_hash: str
    """The config hash of the deployment."""
    deployment_id: str
    """The id of the deployment, even if it was deleted."""


class ArtifactFile(Model, kw_only=True):
    path: str
    """The path of the file in the incident bundle."""
    size: int
    """The size of the file in bytes."""
    sha256: str
    """The SHA-256 of the file."""


class ArtifactFiles(Model, kw_only=True):
    results: list[ArtifactFile]
    """The files of this page, sorted by path."""
    truncated: bool
    """Whether more files follow on the next page."""
    next_after: str | None
    """The value of `after` for the next page. Null on the last page."""


class Attempt(Model, kw_only=True):
    at: datetime
    """When the attempt was made. If `error` is `restored`, when the backup was restored."""
    status: int | None
    """The status code of the response. Null if there was no response."""
    error: str
    """Why no response was received: `forbidden_address`, `dns`, `tls`, `timeout`, `connection`, `protocol`,
    `master_key`, or `restored` if the delivery was pending in a backup that was restored. Empty if there was a
    response."""
    duration_ms: int
    """The duration of the attempt in milliseconds."""


class Attestation(Model, kw_only=True):
    sha256: str
    """The SHA-256 of the statement's DSSE envelope."""
    size: int
    """The size of the envelope in bytes."""
    url: str
    """The path of the envelope on this server."""


class AuditActor(Model, kw_only=True):
    kind: str
    """The kind of actor: `user`, `organization_key`, `enrollment_token`, `agent` or `system`."""
    id: str
    """The actor's id. For `system`, the name of a job group, of a service or of a command."""
    display: str
    """The actor's name or e-mail address at the time of the event."""


class AuditScope(Model, kw_only=True):
    organization_id: str | None
    """The id of the organization that the resource belongs to. Null if it belongs to no organization."""
    project_id: str | None
    """The id of the project that the resource belongs to. Null if it belongs to no project."""
    environment_id: str | None
    """The id of the environment that the resource belongs to. Null if it belongs to no environment."""
    kind: str
    """The kind of resource."""
    id: str
    """The resource's id."""


class AuditSeal(Model, kw_only=True):
    seq: int
    """The event's position in the chain, counted from 1."""
    prev_hash: str
    """The hash of the previous event in the chain. For the first event, `sha256:` and 64 zeros."""
    hash: str
    """The SHA-256 of the event, `seq` and `prev_hash`."""


class Baseline(Model, kw_only=True):
    config_hash: str
    """The config hash of the configuration."""
    config_bundle_id: str
    """The id of a config bundle with this config hash."""
    version_id: str
    """The id of the version of that config bundle."""
    agents: int
    """The number of agents that ran the configuration at the time of the request. If the regression was started for
    a deployment, only the agents in the deployment's target are counted. Otherwise, all agents of the environment
    are counted."""
    share: float
    """`agents` divided by the number of all counted agents that ran the pipeline, from 0 to 1."""


class Predicate(Model, kw_only=True):
    """The condition under which a version is bad."""

    output_differs_from: str
    """The id of a replay. A version is bad if its output differs from the output of this replay."""


class Predicate1(Model, kw_only=True):
    """The condition under which a version is bad. `diverges`: its output differs from the capture's expected
    output, or a stage fails and the recording does not contain this failure. `fails`: a stage fails.
    `output_differs_from`: its output differs from that of another replay."""

    output_differs_from: str
    """The id of a replay. A version is bad if its output differs from the output of this replay."""


class BreakGlass(Model, kw_only=True):
    """A deployment that can start before approval. If it is not approved in time, it is rolled back if possible."""

    reason: str
    """Why the deployment cannot wait for an approval."""
    by: str
    """The e-mail address of the person who deployed by break-glass."""
    approve_by: datetime
    """The time by which the deployment must be approved. Its requester cannot approve it."""


class BreakGlassRequest(Model, kw_only=True):
    """A deployment that can start before approval. If it is not approved in time, it is rolled back if possible."""

    reason: str
    """Why the deployment cannot wait for an approval."""
    expires_in_s: int | UnsetType = UNSET
    """The number of seconds within which the deployment must be approved. Its requester cannot approve it. Defaults
    to the environment's `approval_ttl_s`, which is also the maximum."""


class BundleState(Model, kw_only=True):
    """A bundle that was offered to the agent, and the deployment that offered it."""

    deployment_id: str | None
    """The id of the deployment that offered the bundle. For a rollback, this is the deployment that is rolled back.
    Null if unknown."""
    bundle_hash: str
    """The SHA-256 of the deploy bundle's tar file."""
    since: datetime | None
    """When the agent began to report progress with this bundle for this deployment. Null if unknown."""


class Capture(Model, kw_only=True):
    fixture_id: str
    """The id of the fixture, even if it was deleted."""
    name: str
    """The name of the fixture when the regression started."""
    artifact_id: str | None
    """The id of the artifact with the capture. Null if the fixture was deleted."""


class ChatAttempt(Model, kw_only=True):
    at: datetime
    """When the attempt was made. If `error` is `restored`, when the backup was restored."""
    status: int | None
    """The status code of the response. Null if there was no response."""
    error: str
    """Why no response was received: `forbidden_address`, `dns`, `tls`, `timeout`, `connection`, `protocol` or
    `master_key`. If the chat server refused the message: its error code or message, at most 100 characters. If the
    response contains neither: `unexpected_response` for a 2xx status, and otherwise empty. `obsolete` if the
    message was not sent because it no longer applied or was older than 3 days. `restored` if the delivery was
    pending in a backup that was restored. Also empty if the message was accepted."""
    duration_ms: int
    """The duration of the attempt in milliseconds."""


class ChatWebhook(Model, kw_only=True):
    id: str
    """The id of the chat webhook, a UUIDv7. Ids sort by creation time."""
    name: str
    """The name of the chat webhook, for example the name of the channel."""
    format: str
    """The kind of chat server, which determines the format of the messages."""
    host: str
    """The host of the URL, with the port if it is not the default port."""
    events: list[str]
    """The events about which messages are sent. `*` stands for all events. `webhook.failing` and `quota.near` are
    sent only to chat webhooks of the whole organization, and `key.expires` is not sent for user tokens."""
    enabled: bool
    """Whether the chat webhook receives messages."""
    disabled_reason: str
    """Why the service disabled the chat webhook. Empty if the service did not disable it or if it was enabled
    again."""
    project_id: str | None
    """The id of the project to which the chat webhook is limited. Null if it is not limited to a project. Defaults
    to the project of `environment_id`. It cannot be changed after creation."""
    environment_id: str | None
    """The id of the environment to which the chat webhook is limited. Null if it is not limited to an environment.
    It cannot be changed after creation."""
    failing_since: datetime | None
    """When the attempts began to fail. Null if no attempt has failed since the last success, or since the chat
    webhook was enabled or its URL was changed."""
    created_at: datetime
    """When the chat webhook was created."""
    updated_at: datetime
    """When the chat webhook was last changed."""


class Comparison(Model, kw_only=True):
    equal: bool
    """Whether all egresses, stages and side effects are equal."""
    egress: dict[str, Any]
    """The number and the digest of each egress's records in both replays. A value is null if the replay does not
    have the egress."""
    stages: dict[str, Any]
    """The counters of each stage in both replays. A value is null if the replay does not have the stage."""
    truncated: bool
    """Whether egresses or stages are left out because a response is limited to 4 MiB. Equal ones are left out
    first. The `result` of each replay contains all of them."""
    actions: dict[str, Any]
    """Whether the side effects are equal, and how many side effects each replay had."""
    notes: list[list[dict[str, Any]]]
    """The `notes` of both results. A stage with a `no_parameters` note let every record pass, so equal results do
    not show that the stage behaves equally."""
    first_difference: dict[str, Any] | None
    """The first output record that differs, with the `kind` and the `pointers` of its difference as in the
    divergence of a replay. Here, `missing` means that only the first replay has the record, and `extra` that only
    the second has it. Null if no record differs or the output records were not stored."""


class Env(Model, kw_only=True):
    secret_ref: str
    """The name of a secret on the agent's host."""


class ConfigChange(Model, kw_only=True):
    change: str
    """Whether the value was added, removed or changed."""
    what: str
    """The field of the config bundle, for example `stage_config`."""
    name: str
    """The path of the value inside the field, with `/` between keys. Empty for the field itself."""
    old: str | None
    """The value before the change as JSON, or `secret_ref NAME` for a reference to a secret. Null if it was added."""
    new: str | None
    """The value after the change, in the same form. Null if it was removed."""


class ConfigWarning(Model, kw_only=True):
    code: str
    """A stable code. `no_parameters`: a stage has no parameters and lets every record pass unchanged."""
    pointer: str
    """A JSON pointer to the part of the config bundle that the warning is about."""
    detail: str
    """The warning as a sentence."""


class Expect(Model, kw_only=True):
    """The expected result. `same`: the result of the configuration that the candidate is compared with. `golden`:
    the result of the replay with this id. The replay must have the same artifact, `journal_lane` and `last_n` as
    the fixture. Defaults to `same`."""

    golden: str
    """The id of the replay whose result is expected. The fixture keeps a copy of the result."""


class Credential(Model, kw_only=True):
    family: str
    """The family: `usr` (user token) or `org` (organization API key)."""
    id: str
    """The id of the credential, a UUIDv7. Ids sort by creation time."""
    prefix: str
    """The first characters of the secret."""
    expires_at: datetime | None
    """When the credential expires. Null if it does not expire."""


class Decision(Model, kw_only=True):
    id: str
    """The id of the decision, a UUIDv7. Ids sort by creation time."""
    user_id: str
    """The id of the person who decided."""
    decided_by: str
    """The e-mail address of the person who decided."""
    decision: str
    """The decision: `approve` or `deny`."""
    comment: str
    """The person's comment. May be empty."""
    created_at: datetime
    """When the person decided."""


class Desired(Model, kw_only=True):
    deployment_id: str
    """The id of the deployment that the offer belongs to."""
    action: str
    """Whether the agent should activate the bundle (`activate`) or roll back to it (`rollback`)."""
    bundle_hash: str
    """The SHA-256 of the deploy bundle to run."""
    bundle_url: str
    """The path of the deploy bundle on this server."""
    offered_at: datetime
    """When the bundle was offered. A different time means a new offer, even of the same bundle."""
    bundle_size: int
    """The size of the deploy bundle in bytes."""
    envelope: dict[str, Any]
    """The DSSE envelope with the signed in-toto statement about the deploy bundle."""
    attestations: list[Attestation]
    """The signed statements about the deployment for which the bundle was built. One states why the replay gate let
    the deployment start. The other one states how the deployment's configuration was tested. This one is missing if
    the regression had been deleted. The list is empty if the gate was off."""


class DesiredAnswer(Model, kw_only=True):
    """What the agent should run, with the signed envelope of the bundle."""

    desired: Desired | None
    """What the agent should run. Null if the agent has no offer, or while its offer is held after a restore."""


class DesiredState(Model, kw_only=True):
    """A bundle that was offered to the agent, and the deployment that offered it."""

    deployment_id: str | None
    """The id of the deployment that offered the bundle. For a rollback, this is the deployment that is rolled back.
    Null if unknown."""
    bundle_hash: str
    """The SHA-256 of the deploy bundle's tar file."""
    since: datetime | None
    """When the bundle was offered. Null if unknown."""
    action: str
    """Whether the agent should activate this bundle or roll back to it."""


class DeviceSignInCodes(Model, kw_only=True):
    device_code: str
    """The code with which the machine requests its token. Keep it secret."""
    user_code: str
    """The code that the person enters, such as `BCDF-GHJK`."""
    verification_uri: str
    """The URL of the page on which the person enters the code."""
    verification_uri_complete: str
    """The URL of the page with the code prefilled."""
    expires_in: int
    """The number of seconds for which the codes are valid."""
    interval: int
    """The number of seconds to wait between two requests for the token."""


class DifferenceExplanation(Model, kw_only=True):
    """A requester's explanation of a group of differences."""

    group: str
    """The id of a group of differences, as regressions show it."""
    text: str
    """Why the differences are wanted."""


class DifferenceExplanationRequest(Model, kw_only=True):
    """A requester's explanation of a group of differences."""

    group: str
    """The id of a group of differences, as regressions show it."""
    text: str
    """Why the differences are wanted."""


class EnrollmentToken(Model, kw_only=True):
    id: str
    """The id of the enrollment token, a UUIDv7. Ids sort by creation time."""
    prefix: str
    """The first characters of the secret, which help you recognize the token."""
    expires_at: datetime
    """When the token expires."""
    last_used_at: datetime | None
    """When the token was last used. Null if it has never been used."""
    revoked_at: datetime | None
    """When the token was revoked. Null if it has not been revoked."""
    created_at: datetime
    """When the enrollment token was created."""
    environment_id: str
    """The id of the environment in which the token enrolls agents."""
    max_uses: int
    """How many agents can enroll with the token. Defaults to 1."""
    uses: int
    """How many agents have enrolled with the token."""
    labels: dict[str, str]
    """Labels that each agent gets when it enrolls with the token."""
    replace: bool
    """Whether a new agent may take over the name of an existing agent. The existing agent is then decommissioned,
    and its key is revoked. Defaults to false."""


class EnrollmentTokenWithSecret(Model, kw_only=True):
    """This is the only response that contains the secret."""

    id: str
    """The id of the enrollment token, a UUIDv7. Ids sort by creation time."""
    prefix: str
    """The first characters of the secret, which help you recognize the token."""
    expires_at: datetime
    """When the token expires."""
    last_used_at: datetime | None
    """When the token was last used. Null if it has never been used."""
    revoked_at: datetime | None
    """When the token was revoked. Null if it has not been revoked."""
    created_at: datetime
    """When the enrollment token was created."""
    environment_id: str
    """The id of the environment in which the token enrolls agents."""
    max_uses: int
    """How many agents can enroll with the token. Defaults to 1."""
    uses: int
    """How many agents have enrolled with the token."""
    labels: dict[str, str]
    """Labels that each agent gets when it enrolls with the token."""
    replace: bool
    """Whether a new agent may take over the name of an existing agent. The existing agent is then decommissioned,
    and its key is revoked. Defaults to false."""
    token: str
    """The secret. It is shown only in this response."""


class FailedState(Model, kw_only=True):
    """A bundle that was offered to the agent, and the deployment that offered it."""

    deployment_id: str | None
    """The id of the deployment that offered the bundle. For a rollback, this is the deployment that is rolled back.
    Null if unknown."""
    bundle_hash: str
    """The SHA-256 of the deploy bundle's tar file."""
    since: datetime | None
    """When the failure was recorded. Null if unknown."""
    detail: str
    """Why the agent failed. If the agent reported the failure, this is the reason that it gave, which may be empty.
    Otherwise, it is a text that states that the agent did not finish in time."""


class Expect1(Model, kw_only=True):
    """The expected result. `same`: the result of the configuration that the candidate is compared with. `golden`:
    the result of the replay with this id. The replay must have the same artifact, `journal_lane` and `last_n` as
    the fixture."""

    golden: str
    """The id of the replay whose result is expected. The fixture keeps a copy of the result."""


class Fixture(Model, kw_only=True):
    id: str
    """The id of the fixture, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the fixture belongs to."""
    pipeline: str
    """The name of the pipeline."""
    name: str
    """The name of the fixture, unique in its pipeline."""
    owner: str | None
    """The id of the person who is responsible for the fixture. A new owner must have access to the project. Null if
    the fixture has no owner."""
    note: str
    """Why the capture is kept."""
    artifact_id: str
    """The id of the artifact whose records are replayed. Retention deletes the artifact only after the fixture has
    expired or was deleted."""
    journal_lane: str | None
    """The ingress whose journal is replayed. Null if all journals are replayed together."""
    last_n: int | None
    """The number of records to replay from the end of the input. Null if all records are replayed."""
    records: list[int] | None
    """Which records of the original artifact the fixture's artifact contains: the positions of the first and the
    last. The original artifact is the `origin` of the fixture's artifact. Null if an agent uploaded the fixture's
    artifact."""
    expires_at: datetime | None
    """When the fixture expires. An expired fixture is not tested, and no longer protects its artifact from
    retention. Null if it does not expire."""
    is_expired: bool
    """Whether the fixture has expired."""
    expect: str | Expect1
    """The expected result. `same`: the result of the configuration that the candidate is compared with. `golden`:
    the result of the replay with this id. The replay must have the same artifact, `journal_lane` and `last_n` as
    the fixture."""
    also_expected: list[AlsoExpected]
    """The deployments whose results a fixture with a golden result also expects, at most the newest 20, newest
    first. A deployment is added after it has become current, if all its differences on this fixture were accepted.
    Results of configurations that are known bad are not expected. A candidate that gives none of the expected
    results is compared with the configuration of the newest deployment in this list. If that configuration is known
    bad or was too large to be kept, the candidate is compared with the configuration of the golden result. A change
    of `expect` clears the list."""
    created_by: str
    """Who created the fixture: an e-mail address, or `key` and the name of an organization API key."""
    created_at: datetime
    """When the fixture was created."""
    updated_at: datetime
    """When the fixture was last changed."""


class Graph(Model, kw_only=True):
    nodes: list[dict[str, Any]]
    """The stages, endpoints and inserted roles."""
    edges: list[dict[str, Any]]
    """The lanes between the nodes. In a single ring, each edge shows the order of two nodes."""


class GroupAcceptance(Model, kw_only=True):
    acceptance_id: str
    """The id of the acceptance."""
    accepted_by: str
    """Who accepted the difference: an e-mail address, or `key` and the name of an organization API key."""
    reason: str
    """Why the difference is wanted."""
    accepted_at: datetime
    """When the difference was accepted."""
    baselines: list[str | None]
    """The config hashes of the baselines for which the packet lists this acceptance. A null in the list stands for
    golden results."""


class GroupBaseline(Model, kw_only=True):
    config_hash: str | None
    """The config hash that the candidate was compared with. Null for golden results."""
    count: int
    """The number of differences in the comparison with this configuration or with golden results."""


class GroupFixture(Model, kw_only=True):
    id: str
    """The id of the fixture, even if it was deleted."""
    name: str
    """The name of the fixture."""


class HeldOffers(Model, kw_only=True):
    """The offers of an environment that have been held since the installation was restored from a backup."""

    agents: int
    """The number of agents whose offers are held. These agents keep running what they run."""
    backup_at: datetime | None
    """When the backup was made. Null if no offers are held."""


class JournalRecord(Model, kw_only=True):
    position: int
    """The position of the record in sequence order, starting at 0."""
    sequence: int
    """The sequence number of the record."""
    time: str
    """The time of the record (RFC 3339), with nanoseconds."""
    size: int
    """The size of the payload in bytes."""
    json: Any
    """The payload as JSON. Null if it is incomplete or not valid JSON, or if the server refuses the JSON, for
    example because of duplicate keys."""
    payload_base64: str | None
    """The payload in Base64, at most its first 64 KiB. Null if `json` is not null and contains each number with the
    same digits as the payload."""
    truncated: bool
    """Whether only the first 64 KiB of the payload are returned."""


class Limits(Model, kw_only=True):
    agents: int | None
    """The maximum number of enrolled agents. Null if there is no quota."""
    stored_bytes: int | None
    """The maximum number of stored bytes. Null if there is no quota."""
    captures_per_day: int | None
    """The maximum number of captures per day (UTC), counted as in `used`. When it is reached, agents cannot upload
    new incident bundles. Null if there is no quota."""
    drafts: int | None
    """The maximum number of drafts. Null if there is no quota."""


class Predicate2(Model, kw_only=True):
    """The condition under which a version is bad."""

    output_differs_from: str
    """The id of a replay. A version is bad if its output differs from the output of this replay."""


class ListedChatWebhook(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the chat webhook, a UUIDv7. Ids sort by creation time."""
    name: str
    """The name of the chat webhook, for example the name of the channel."""
    format: str
    """The kind of chat server, which determines the format of the messages."""
    host: str
    """The host of the URL, with the port if it is not the default port."""
    events: list[str]
    """The events about which messages are sent. `*` stands for all events. `webhook.failing` and `quota.near` are
    sent only to chat webhooks of the whole organization, and `key.expires` is not sent for user tokens."""
    enabled: bool
    """Whether the chat webhook receives messages."""
    disabled_reason: str
    """Why the service disabled the chat webhook. Empty if the service did not disable it or if it was enabled
    again."""
    project_id: str | None
    """The id of the project to which the chat webhook is limited. Null if it is not limited to a project. Defaults
    to the project of `environment_id`. It cannot be changed after creation."""
    environment_id: str | None
    """The id of the environment to which the chat webhook is limited. Null if it is not limited to an environment.
    It cannot be changed after creation."""
    failing_since: datetime | None
    """When the attempts began to fail. Null if no attempt has failed since the last success, or since the chat
    webhook was enabled or its URL was changed."""
    created_at: datetime
    """When the chat webhook was created."""
    updated_at: datetime
    """When the chat webhook was last changed."""


class ListedVersion(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the version, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the version belongs to."""
    name: str
    """The name of the pipeline, as in its plan."""
    number: int
    """The number of the version, counted from 1 for each pipeline in the environment."""
    draft_id: str | None
    """The id of the draft that the version was promoted from, even if the draft was deleted. A copied version has
    the `draft_id` of the original. Null if unknown."""
    draft_revision: int | None
    """The revision of the draft that the version was promoted from. Null if `draft_id` is null."""
    plan: dict[str, Any] | None
    """The plan that the version was compiled from. In a list, this field is null if it is larger than 4 KiB;
    `getVersion` returns it."""
    spec: dict[str, Any] | None
    """The spec as JSON. In a list, this field is null if it is larger than 4 KiB; `getVersion` returns it."""
    spec_kv: str | None
    """The canonical text of the spec. In a list, this field is null if it is larger than 4 KiB; `getVersion`
    returns it."""
    spec_hash: str
    """The SHA-256 of the canonical spec: `sha256:` and 64 lowercase hexadecimal digits."""
    compiler_version: str
    """The version of the compiler."""
    created_by: str
    """Who created the version: an e-mail address, or `key` and the name of an organization API key."""
    created_at: datetime
    """When the version was created."""
    origin: str | None
    """If this version is a copy: the id of the version in another environment from which it was copied, even if
    that version was deleted. Null if this version was promoted."""


class MarkedNotifications(Model, kw_only=True):
    changed: int
    """The number of notifications that were changed."""
    unread: int
    """The number of unread notifications, at most 50."""


class MatrixVersion(Model, kw_only=True):
    """The version of a current deployment."""

    id: str
    """The id of the promoted version, a UUIDv7. Ids sort by creation time."""
    number: int
    """The number of the version. Environments number their versions independently."""
    spec_hash: str
    """The spec hash of the version."""


class MonthOfUsage(Model, kw_only=True):
    month: str
    """The month in UTC."""
    agents: int | None
    """The highest number of enrolled agents, counted once a minute. Null if there is no count."""
    heartbeats: int
    """The number of stored heartbeats. Each server process adds its count at most once a minute. When a process
    stops, its heartbeats since the last addition are not counted."""
    uploaded_bytes: int
    """The size in bytes of all new artifacts, including those that have been deleted since."""
    stored_bytes: int | None
    """The highest number of stored bytes, counted once a minute. Null if there is no count."""
    replays: int
    """The number of requested replays, including those of bisects."""
    work: int
    """The work of all replays that produced a result, including those of regressions, in units. For each record
    that is a JSON object, a stage that checks a schema counts at least the number of the schema's keywords times
    the number of JSON values in the record. Any stage that checks no schema counts at least one unit, plus one for
    each full KiB of the record."""


class Notification(Model, kw_only=True):
    id: str
    """The id of the notification, a UUIDv7. Ids sort by creation time."""
    event: str
    """The type of the event."""
    text: str
    """A short text that says what happened."""
    path: str
    """The path of the console page to which the notification links."""
    count: int
    """The number of events that the notification covers. Greater than 1 only if repeated events were grouped."""
    organization_id: str
    """The id of the organization."""
    project_id: str | None
    """The id of the project. Null if the event belongs to no project."""
    environment_id: str | None
    """The id of the environment. Null if the event belongs to no environment."""
    resource_kind: str
    """The kind of the resource that the event is about."""
    resource_id: str
    """The id of the resource that the event is about."""
    read_at: datetime | None
    """When the notification was marked as read. Null while it is unread."""
    created_at: datetime
    """When the notification was created."""


class Settings(Model, kw_only=True):
    """The caller's choices: for each event, an object that maps ids of environments to `off`, `now` or `daily`. The
    key `*` stands for all other environments and for events outside environments. An update replaces the choices
    for the events in the body, and keeps all others. An empty object removes the choices for an event."""

    approval_needed: dict[str, str] | UnsetType = field(name="approval.needed", default=UNSET)
    """An approval is waiting for your decision."""
    break_glass_needed: dict[str, str] | UnsetType = field(name="break_glass.needed", default=UNSET)
    """A deployment started without approval and is waiting for your decision."""
    wave_held: dict[str, str] | UnsetType = field(name="wave.held", default=UNSET)
    """The next wave of a rollout is on hold."""
    rollout_stopped: dict[str, str] | UnsetType = field(name="rollout.stopped", default=UNSET)
    """A deployment failed, was denied or was aborted."""
    rollout_finished: dict[str, str] | UnsetType = field(name="rollout.finished", default=UNSET)
    """A rollout finished."""
    rollout_rolled_back: dict[str, str] | UnsetType = field(name="rollout.rolled_back", default=UNSET)
    """A deployment was rolled back."""
    incident_new: dict[str, str] | UnsetType = field(name="incident.new", default=UNSET)
    """An agent uploaded an incident capture that was not requested."""
    incident_reopened: dict[str, str] | UnsetType = field(name="incident.reopened", default=UNSET)
    """An incident happened again after 7 to 30 days, or a reopened incident happened again. An incident that
    happens again after more than 30 days counts as new."""
    fixture_current_fails: dict[str, str] | UnsetType = field(name="fixture.current_fails", default=UNSET)
    """The current deployment of an environment fails a golden fixture or cannot be tested."""
    agents_failed: dict[str, str] | UnsetType = field(name="agents.failed", default=UNSET)
    """Agents failed."""
    agents_offline: dict[str, str] | UnsetType = field(name="agents.offline", default=UNSET)
    """Agents went offline."""
    agent_cloned: dict[str, str] | UnsetType = field(name="agent.cloned", default=UNSET)
    """An agent seems to run on two machines."""
    webhook_failing: dict[str, str] | UnsetType = field(name="webhook.failing", default=UNSET)
    """A webhook is failing, or was disabled because it failed."""
    key_expires: dict[str, str] | UnsetType = field(name="key.expires", default=UNSET)
    """A credential expires soon."""
    quota_near: dict[str, str] | UnsetType = field(name="quota.near", default=UNSET)
    """The organization has used most of a quota."""


class Defaults(Model, kw_only=True):
    """For each event, when e-mails are sent to people who have not chosen, unless their organization has other
    defaults. The person who requested a deployment gets its e-mails about `rollout.stopped` and
    `rollout.rolled_back` immediately, unless this person or the organization has chosen otherwise."""

    approval_needed: str | UnsetType = field(name="approval.needed", default=UNSET)
    """An approval is waiting for your decision."""
    break_glass_needed: str | UnsetType = field(name="break_glass.needed", default=UNSET)
    """A deployment started without approval and is waiting for your decision."""
    wave_held: str | UnsetType = field(name="wave.held", default=UNSET)
    """The next wave of a rollout is on hold."""
    rollout_stopped: str | UnsetType = field(name="rollout.stopped", default=UNSET)
    """A deployment failed, was denied or was aborted."""
    rollout_finished: str | UnsetType = field(name="rollout.finished", default=UNSET)
    """A rollout finished."""
    rollout_rolled_back: str | UnsetType = field(name="rollout.rolled_back", default=UNSET)
    """A deployment was rolled back."""
    incident_new: str | UnsetType = field(name="incident.new", default=UNSET)
    """An agent uploaded an incident capture that was not requested."""
    incident_reopened: str | UnsetType = field(name="incident.reopened", default=UNSET)
    """An incident happened again after 7 to 30 days, or a reopened incident happened again. An incident that
    happens again after more than 30 days counts as new."""
    fixture_current_fails: str | UnsetType = field(name="fixture.current_fails", default=UNSET)
    """The current deployment of an environment fails a golden fixture or cannot be tested."""
    agents_failed: str | UnsetType = field(name="agents.failed", default=UNSET)
    """Agents failed."""
    agents_offline: str | UnsetType = field(name="agents.offline", default=UNSET)
    """Agents went offline."""
    agent_cloned: str | UnsetType = field(name="agent.cloned", default=UNSET)
    """An agent seems to run on two machines."""
    webhook_failing: str | UnsetType = field(name="webhook.failing", default=UNSET)
    """A webhook is failing, or was disabled because it failed."""
    key_expires: str | UnsetType = field(name="key.expires", default=UNSET)
    """A credential expires soon."""
    quota_near: str | UnsetType = field(name="quota.near", default=UNSET)
    """The organization has used most of a quota."""


class NotificationSettings(Model, kw_only=True):
    """The caller's notification settings: when to send e-mails about events."""

    id: str
    """The id of the person whose settings these are."""
    settings: Settings
    """The caller's choices: for each event, an object that maps ids of environments to `off`, `now` or `daily`. The
    key `*` stands for all other environments and for events outside environments. An update replaces the choices
    for the events in the body, and keeps all others. An empty object removes the choices for an event."""
    defaults: Defaults
    """For each event, when e-mails are sent to people who have not chosen, unless their organization has other
    defaults. The person who requested a deployment gets its e-mails about `rollout.stopped` and
    `rollout.rolled_back` immediately, unless this person or the organization has chosen otherwise."""
    mail_configured: bool
    """Whether the installation can send e-mails. If it cannot, notifications appear only in the console and in the
    API."""


class Offer(Model, kw_only=True):
    deployment_id: str
    """The id of the deployment that the offer belongs to."""
    action: str
    """Whether the agent should activate the bundle (`activate`) or roll back to it (`rollback`)."""
    bundle_hash: str
    """The SHA-256 of the deploy bundle to run."""
    bundle_url: str
    """The path of the deploy bundle on this server."""
    offered_at: datetime
    """When the bundle was offered. A different time means a new offer, even of the same bundle."""


class DefaultNotificationSettings(Model, kw_only=True):
    """For each type of event, when members who have not chosen this themselves get e-mails: `off`, `now` or
    `daily`. An update replaces all of these settings."""

    approval_needed: str | UnsetType = field(name="approval.needed", default=UNSET)
    """An approval is waiting for your decision."""
    break_glass_needed: str | UnsetType = field(name="break_glass.needed", default=UNSET)
    """A deployment started without approval and is waiting for your decision."""
    wave_held: str | UnsetType = field(name="wave.held", default=UNSET)
    """The next wave of a rollout is on hold."""
    rollout_stopped: str | UnsetType = field(name="rollout.stopped", default=UNSET)
    """A deployment failed, was denied or was aborted."""
    rollout_finished: str | UnsetType = field(name="rollout.finished", default=UNSET)
    """A rollout finished."""
    rollout_rolled_back: str | UnsetType = field(name="rollout.rolled_back", default=UNSET)
    """A deployment was rolled back."""
    incident_new: str | UnsetType = field(name="incident.new", default=UNSET)
    """An agent uploaded an incident capture that was not requested."""
    incident_reopened: str | UnsetType = field(name="incident.reopened", default=UNSET)
    """An incident happened again after 7 to 30 days, or a reopened incident happened again. An incident that
    happens again after more than 30 days counts as new."""
    fixture_current_fails: str | UnsetType = field(name="fixture.current_fails", default=UNSET)
    """The current deployment of an environment fails a golden fixture or cannot be tested."""
    agents_failed: str | UnsetType = field(name="agents.failed", default=UNSET)
    """Agents failed."""
    agents_offline: str | UnsetType = field(name="agents.offline", default=UNSET)
    """Agents went offline."""
    agent_cloned: str | UnsetType = field(name="agent.cloned", default=UNSET)
    """An agent seems to run on two machines."""
    webhook_failing: str | UnsetType = field(name="webhook.failing", default=UNSET)
    """A webhook is failing, or was disabled because it failed."""
    key_expires: str | UnsetType = field(name="key.expires", default=UNSET)
    """A credential expires soon."""
    quota_near: str | UnsetType = field(name="quota.near", default=UNSET)
    """The organization has used most of a quota."""


class Origin(Model, kw_only=True):
    artifact_id: str
    """The id of the original artifact, even if it was deleted."""
    records: list[int]
    """The positions of the first and the last record that were kept, in the order of a replay."""


class OutcomeCount(Model, kw_only=True):
    equal: int
    """The number of fixtures without a difference."""
    different: int
    """The number of fixtures that show differences."""
    failed: int
    """The number of fixtures for which the candidate or the process of the test failed."""
    unstable: int
    """The number of fixtures for which a stage gave different results for the same records."""
    not_tested: int
    """The number of fixtures that could not be tested."""


class PacketBaseline(Model, kw_only=True):
    config_hash: str
    """The config hash of the configuration."""
    version: str | None
    """The name of the configuration's version. Null if its config bundles were deleted."""
    config_bundle: str | None
    """The name of the newest config bundle with this config hash. Null if all of them were deleted."""
    agents: int
    """The number of agents that ran the configuration when the regression was requested. If the regression was
    started for the deployment, only the agents in the target are counted. Otherwise, all agents of the environment
    are counted."""
    share: float
    """`agents` divided by the number of all counted agents that ran the pipeline, from 0 to 1."""
    outcomes: OutcomeCount
    """The number of fixtures with each outcome in the comparison with this configuration."""


class PacketProgress(Model, kw_only=True):
    done: int
    """The number of results that have an outcome."""
    total: int
    """The number of results. It is 0 until the regression has started."""


class PacketRollback(Model, kw_only=True):
    deployment_id: str | None
    """The id of the deployment that would be restored. Null if there is none."""
    version: str | None
    """The name of the version of that deployment. Null if there is no such deployment."""
    config_hash: str | None
    """The config hash of that deployment. Null if there is no such deployment."""
    reason: str | None
    """Why a rollback cannot restore a deployment. Null if it can."""


class PacketWork(Model, kw_only=True):
    candidate: int
    """The work of the candidate."""
    baseline: int
    """The work of the configurations that the candidate was compared with."""
    increase_percent: float | None
    """How much more work the candidate needs than the other configurations, in percent. Negative if it needs less.
    Null if `baseline` is 0."""


class PaginatedEnrollmentTokenList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[EnrollmentToken]
    """The rows of this page."""


class PaginatedFixtureList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[Fixture]
    """The rows of this page."""


class PaginatedListedChatWebhookList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[ListedChatWebhook]
    """The rows of this page."""


class PaginatedListedVersionList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[ListedVersion]
    """The rows of this page."""


class PaginatedNotificationList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[Notification]
    """The rows of this page."""


class PendingCapture(Model, kw_only=True):
    id: str
    """The id of the request. Send it as `capture_id` with the upload."""
    reason: str
    """Why the capture is needed."""
    last_n: int | None
    """The number of records to capture from the end of each journal. Null for all records."""
    expires_at: datetime
    """When the request expires."""


class PendingCaptureAnswer(Model, kw_only=True):
    capture: PendingCapture | None
    """The oldest request that is neither uploaded nor expired. Null if there is none."""


class Progress(Model, kw_only=True):
    """The number of the deployment's enlisted agents, in total and by progress."""

    total: int
    """The number of all enlisted agents of the deployment."""
    pending: int
    """Agents without an offer from this deployment."""
    offered: int
    """Agents that have not reported on their latest offer from this deployment."""
    downloading: int
    """Agents whose last report was `downloading`."""
    activating: int
    """Agents whose last report was `activating`."""
    active: int
    """Agents that activated the bundle, and agents that the rollback of another deployment added."""
    failed: int
    """Agents that failed to activate the bundle or to roll back."""
    rolled_back: int
    """Agents that rolled back."""


class Project(Model, kw_only=True):
    id: str
    """The id of the project, a UUIDv7. Ids sort by creation time."""
    organization_id: str
    """The id of the organization that the project belongs to."""
    name: str
    """The project's name, unique in the organization."""
    slug: str
    """A short name, unique in the organization. By default, it is derived from the name at creation, or random if
    the name has no usable characters."""
    created_at: datetime
    """When the project was created."""
    updated_at: datetime
    """When the project was last changed."""


class ReasonRequest(Model, kw_only=True):
    reason: str
    """The reason, in your own words. It is stored in the audit trail."""


class RegressionProgress(Model, kw_only=True):
    done: int
    """The number of results that have an outcome."""
    total: int
    """The number of results: one for each fixture with a golden result, and for each other fixture one for each
    configuration to compare with. It is 0 until the regression has started."""


class RegressionWork(Model, kw_only=True):
    candidate: int
    """The work of the candidate."""
    baseline: int
    """The work of the configurations that the candidate was compared with."""


class Rejection(Model, kw_only=True):
    code: str
    """A stable code for the reason."""
    detail: str
    """The reason as text."""


class Relabeled(Model, kw_only=True):
    """The effect of a label change or, with `dry_run`, the effect that the change would have."""

    matched: int
    """The number of agents that match the selector."""
    changed: int
    """The number of these agents whose labels change."""
    deployments_offered: int
    """The number of changed agents that are offered a deployment because of the change."""


class ReplayProgress(Model, kw_only=True):
    done: int
    """The number of processed records. It is 0 while the journals are being read."""
    total: int
    """The number of records to process. While the journals are being read, it is the number of records read so far."""


class ReportAnswer(Model, kw_only=True):
    accepted: bool
    """Always true. A report on an offer that is not current, or with a status that cannot follow the agent's
    progress, is recorded but returns 409. The repetition of an accepted report on the current offer is ignored and
    returns 200."""


class RotatedKey(Model, kw_only=True):
    agent_id: str
    """The id of the agent."""
    token: str
    """The new agent key. It is shown only in this response."""


class RunningConfiguration(Model, kw_only=True):
    config_hash: str
    """The config hash of the configuration."""
    version: str | None
    """The name of the configuration's version. Null if its config bundles were deleted."""
    config_bundle: str | None
    """The name of the newest config bundle with this config hash. Null if all of them were deleted."""
    agents: int
    """The number of the target's agents that run the configuration now."""
    share: float
    """`agents` divided by the number of the target's agents that run any known configuration of the pipeline, from
    0 to 1."""
    tested: bool
    """Whether the regression compared the candidate with the configuration on at least one fixture."""


class RunningInterval(Model, kw_only=True):
    """An interval in which an agent ran one bundle."""

    agent_id: str
    """The id of the agent."""
    agent_name: str
    """The agent's current name."""
    from_: datetime = field(name="from")
    """When the first heartbeat of the interval arrived. All heartbeats of an interval report the same bundle,
    deployment and spec hash."""
    to: datetime | None
    """When a heartbeat first reported another bundle, deployment or spec hash, or no bundle. Null if no heartbeat
    did, even if the agent has been decommissioned."""
    confirmed_until: datetime
    """When the last heartbeat of the interval arrived."""
    deployment_id: str | None
    """The id of this environment's deployment for which the bundle was built. If there is none, the id of the
    deployment that the agent reported. Null if it reported none, or one of another environment."""
    bundle_hash: str
    """The SHA-256 of the deploy bundle."""
    spec_hash: str
    """The spec hash that the agent reported."""
    version_id: str | None
    """The id of the deployment's version. Null if `deployment_id` is null."""
    config_bundle_id: str | None
    """The id of the deployment's config bundle. Null if `deployment_id` is null."""
    approval_id: str | None
    """The id of the deployment's approval, whatever its status. Null if there is none, or if `deployment_id` is
    null."""
    approved_by: list[str]
    """The e-mail addresses of the people who approved the deployment. May be empty."""


class RunningState(Model, kw_only=True):
    """A bundle that the agent runs, and the deployment for which it was built."""

    deployment_id: str | None
    """The id of the deployment for which the bundle was built. Null if unknown."""
    bundle_hash: str
    """The SHA-256 of the deploy bundle's tar file."""
    since: datetime | None
    """When heartbeats began to report that the agent runs this bundle. Null if unknown."""
    spec_hash: str
    """The SHA-256 of the canonical spec: `sha256:` and 64 lowercase hexadecimal digits."""


class Sealing(Model, kw_only=True):
    files: str | None
    """What blocks access to files that the processes do not need: `landlock`. Null if nothing does."""
    network: str
    """What blocks network access: `seccomp`, or `audit hook`, which native code can bypass."""
    programs: str
    """What prevents starting programs: `seccomp`, or `audit hook`, which native code can bypass."""
    processes: str | None
    """What blocks access to other processes: `seccomp`. Null if nothing does."""
    memory: str | None
    """What limits memory: `rlimit`. Null if nothing does."""


class SeriesPoint(Model, kw_only=True):
    """The values that heartbeats reported in one slot of 15 minutes."""

    at: datetime
    """The start of the slot, a multiple of 15 minutes."""
    records_in: int | None
    """The increase of `records_in` in the slot. Null if it was not reported."""
    records_out: int | None
    """The increase of `records_out` in the slot. Null if it was not reported."""
    drops: int | None
    """The increase of `drops` in the slot. Null if it was not reported."""
    errors: int | None
    """The increase of `errors` in the slot. Null if it was not reported."""
    cpu_percent: float | None
    """For an agent, the mean of `cpu_percent` over the heartbeats of the slot that report it. For an environment,
    the sum of its agents' means. Null if it was not reported."""
    memory_bytes: int | None
    """For an agent, the mean of `memory_bytes` over the heartbeats of the slot that report it. For an environment,
    the sum of its agents' means. Null if it was not reported."""
    restarts: int | None
    """The number of restarts of agents' processes. A restart is recognized by a new `boot_id`, or by a lower
    `uptime_s` if the agent sends no `boot_id`. An agent's first start does not count. Null if no heartbeat was
    received."""
    online: int
    """The number of agents that sent a heartbeat in the slot: 0 or 1 for an agent."""


class ShownPayload(Model, kw_only=True):
    json: Any
    """The payload as JSON. Null if it is incomplete or not valid JSON, or if the server refuses the JSON, for
    example because of duplicate keys."""
    payload_base64: str | None
    """The payload in Base64, at most its first 16 KiB. Null if `json` is not null and contains each number with the
    same digits as the payload."""
    truncated: bool
    """Whether only the first part of the payload is returned."""


class Snapshot(Model, kw_only=True):
    enabled: bool
    """Whether the runtime takes snapshots."""
    interval_s: int | UnsetType = UNSET
    """The number of seconds between snapshots."""


class SnapshotRequest(Model, kw_only=True):
    enabled: bool | UnsetType = False
    """Whether the runtime takes snapshots."""
    interval_s: int | UnsetType = UNSET
    """The number of seconds between snapshots."""


class StrategyRequest(Model, kw_only=True):
    """How a deployment spreads over the agents of its target."""

    kind: str
    """Whether the deployment is offered to all agents in one wave (`all_at_once`) or in several `waves`."""
    percents: list[int] | UnsetType = UNSET
    """The cumulative percentage of the target's agents that each wave reaches, increasing to 100. Only for `waves`.
    Defaults to 5, 25 and 100."""
    holds: list[str | None] | UnsetType = UNSET
    """What must happen before each wave starts, once the previous wave has finished. One entry for each entry of
    `percents`. `manual`: somebody with the permission `environment:operate` starts the wave with `next-wave`.
    `approval`: people approve what the earlier waves did. Null: nothing. The first entry must be null. If a wave
    has no agents, its hold applies to the next wave that has agents. Only for `waves`. Defaults to no holds."""
    pause_s: int | UnsetType = UNSET
    """The pause between two waves, in seconds. Only for `waves`. Defaults to 0."""
    failure_threshold_percent: int | UnsetType = UNSET
    """The percentage of a wave's counted agents that may fail. If more of them fail, the deployment fails. Defaults
    to 0."""
    auto_rollback: bool | UnsetType = UNSET
    """Whether the deployment is rolled back automatically, if possible, when too many agents fail, a wave is
    denied, or the configuration becomes known bad. Defaults to true for `waves` and to false for `all_at_once`."""


class Target(Model, kw_only=True):
    """The agents that a deployment is for. Exactly one of the fields is present."""

    agents: list[str] | UnsetType = UNSET
    """The ids of the agents."""
    selector: dict[str, str] | UnsetType = UNSET
    """Labels. The target is all agents that have all of these labels, except drained ones."""
    all: bool | UnsetType = UNSET
    """All agents of the environment, except drained ones. The only accepted value is true."""


class TargetRequest(Model, kw_only=True):
    """The agents that a deployment is for. Exactly one of the fields is present."""

    agents: list[str] | UnsetType = UNSET
    """The ids of the agents."""
    selector: dict[str, str] | UnsetType = UNSET
    """Labels. The target is all agents that have all of these labels, except drained ones."""
    all: bool | UnsetType = UNSET
    """All agents of the environment, except drained ones. The only accepted value is true."""


class TimelineEntry(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the timeline entry, a UUIDv7. Ids sort by creation time."""
    event: str
    """The kind of event."""
    actor: str
    """Who caused the event: an e-mail address, `key` and the name of an API key, or a part of the control plane,
    such as `system:rollout`."""
    detail: dict[str, Any] | None
    """More about the event. The keys depend on the kind of event. The number of a `wave` counts from 1. In a list,
    this field is null if it is larger than 4 KiB."""
    created_at: datetime
    """When the timeline entry was created."""


class UnmetSetting(Model, kw_only=True):
    setting: str
    """The name of the setting."""
    reason: str
    """Why the agent could not apply the setting in full."""


class UnmetSettingRequest(Model, kw_only=True):
    setting: str
    """The name of the setting."""
    reason: str
    """Why the agent could not apply the setting in full."""


class UnseenFixtures(Model, kw_only=True):
    count: int
    """The number of fixtures."""
    fixtures: list[GroupFixture]
    """The first five fixtures, sorted by name."""


class Untested(Model, kw_only=True):
    config_hash: str
    """The config hash of the configuration."""
    agents: int
    """The number of agents that ran the configuration at the time of the request. If the regression was started for
    a deployment, only the agents in the deployment's target are counted. Otherwise, all agents of the environment
    are counted."""


class Used(Model, kw_only=True):
    agents: int
    """The number of enrolled agents. Decommissioned and replaced agents do not count."""
    stored_bytes: int
    """The size in bytes of all artifacts, the data derived from them, and all deploy bundles. Equal content counts
    once for each artifact."""
    captures_per_day: int
    """The number of incident bundles that agents have uploaded today (UTC), including rejected ones, plus the
    number of reduced captures that were created for fixtures today."""
    drafts: int
    """The number of drafts."""


class User(Model, kw_only=True):
    id: str
    """The person's id."""
    email: str
    """The person's e-mail address. Empty if it is unknown."""
    name: str
    """The person's name. Empty if it is unknown."""


class UserToken(Model, kw_only=True):
    id: str
    """The id of the user token, a UUIDv7. Ids sort by creation time."""
    name: str
    """A name by which you recognize the token."""
    prefix: str
    """The first characters of the secret, by which you recognize the token."""
    expires_at: datetime
    """When the token expires."""
    last_used_at: datetime | None
    """When the token was last used, to the minute. Null if it was never used."""
    revoked_at: datetime | None
    """When the token was revoked. Null if it was not revoked."""
    created_at: datetime
    """When the user token was created."""


class UserTokenWithSecret(Model, kw_only=True):
    """This is the only response that contains the secret."""

    id: str
    """The id of the user token, a UUIDv7. Ids sort by creation time."""
    name: str
    """A name by which you recognize the token."""
    prefix: str
    """The first characters of the secret, by which you recognize the token."""
    expires_at: datetime
    """When the token expires."""
    last_used_at: datetime | None
    """When the token was last used, to the minute. Null if it was never used."""
    revoked_at: datetime | None
    """When the token was revoked. Null if it was not revoked."""
    created_at: datetime
    """When the user token was created."""
    token: str
    """The secret. It is shown only in this response."""


class VerdictCount(Model, kw_only=True):
    reused: int
    """The number of results whose verdict was known: another regression had computed it, or this regression had
    computed it for another fixture with equal records."""
    computed: int
    """The number of verdicts that this regression computed."""


class Version(Model, kw_only=True):
    id: str
    """The id of the version, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the version belongs to."""
    name: str
    """The name of the pipeline, as in its plan."""
    number: int
    """The number of the version, counted from 1 for each pipeline in the environment."""
    draft_id: str | None
    """The id of the draft that the version was promoted from, even if the draft was deleted. A copied version has
    the `draft_id` of the original. Null if unknown."""
    draft_revision: int | None
    """The revision of the draft that the version was promoted from. Null if `draft_id` is null."""
    plan: dict[str, Any]
    """The plan that the version was compiled from."""
    spec: dict[str, Any]
    """The spec as JSON."""
    spec_kv: str
    """The canonical text of the spec."""
    spec_hash: str
    """The SHA-256 of the canonical spec: `sha256:` and 64 lowercase hexadecimal digits."""
    compiler_version: str
    """The version of the compiler."""
    created_by: str
    """Who created the version: an e-mail address, or `key` and the name of an organization API key."""
    created_at: datetime
    """When the version was created."""
    origin: str | None
    """If this version is a copy: the id of the version in another environment from which it was copied, even if
    that version was deleted. Null if this version was promoted."""


class VersionCount(Model, kw_only=True):
    version_id: str | None
    """The id of the version. Null for bundles that were not built in this environment."""
    number: int | None
    """The number of the version. Null if `version_id` is null."""
    pipeline: str | None
    """The name of the version's pipeline. Null if `version_id` is null."""
    count: int
    """The number of agents that run the version or, if `version_id` is null, bundles built elsewhere."""


class WaveHold(Model, kw_only=True):
    """The hold before the next wave."""

    wave: int
    """The wave that waits, counted from 0."""
    kind: str
    """`manual`: somebody must start the wave with `next-wave`. `approval`: people must approve it."""
    since: datetime
    """When the hold began."""
    approval_id: str | None
    """The id of the wave's approval. Null for a manual hold."""


class Webhook(Model, kw_only=True):
    id: str
    """The id of the webhook, a UUIDv7. Ids sort by creation time."""
    url: str
    """The URL that receives the events. It must use HTTPS, unless the operator permits webhooks to private
    networks."""
    events: list[str]
    """The event types to send. A type that ends in `.*` stands for all events of that kind, and `*` for all events."""
    description: str
    """The purpose of the webhook."""
    enabled: bool
    """Whether the webhook receives events."""
    disabled_reason: str
    """Why the service disabled the webhook. Empty if it did not, or if the webhook was enabled again."""
    project_id: str | None
    """The id of the only project whose events are sent. Null if the webhook is not limited to a project."""
    environment_id: str | None
    """The id of the only environment whose events are sent. Null if the webhook is not limited to an environment."""
    failing_since: datetime | None
    """When the attempts began to fail. Null if no attempt has failed since the last success, or since the webhook
    was enabled."""
    previous_secret_until: datetime | None
    """The time until which deliveries are also signed with the previous secret, 24 hours after the last rotation.
    Null if the secret was never rotated."""
    created_at: datetime
    """When the webhook was created."""
    updated_at: datetime
    """When the webhook was last changed."""


class WebhookWithSecret(Model, kw_only=True):
    """This is the only response that contains the secret."""

    id: str
    """The id of the webhook, a UUIDv7. Ids sort by creation time."""
    url: str
    """The URL that receives the events. It must use HTTPS, unless the operator permits webhooks to private
    networks."""
    events: list[str]
    """The event types to send. A type that ends in `.*` stands for all events of that kind, and `*` for all events."""
    description: str
    """The purpose of the webhook."""
    enabled: bool
    """Whether the webhook receives events."""
    disabled_reason: str
    """Why the service disabled the webhook. Empty if it did not, or if the webhook was enabled again."""
    project_id: str | None
    """The id of the only project whose events are sent. Null if the webhook is not limited to a project."""
    environment_id: str | None
    """The id of the only environment whose events are sent. Null if the webhook is not limited to an environment."""
    failing_since: datetime | None
    """When the attempts began to fail. Null if no attempt has failed since the last success, or since the webhook
    was enabled."""
    previous_secret_until: datetime | None
    """The time until which deliveries are also signed with the previous secret, 24 hours after the last rotation.
    Null if the secret was never rotated."""
    created_at: datetime
    """When the webhook was created."""
    updated_at: datetime
    """When the webhook was last changed."""
    token: str
    """The secret. It is shown only in this response."""


class Acceptance(Model, kw_only=True):
    id: str
    """The id of the acceptance, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the acceptance belongs to."""
    regression_id: str | None
    """The id of the regression that showed the differences. Null if the regression was deleted."""
    config_hash: str
    """The config hash for which the differences are accepted."""
    differences: list[AcceptedDifference]
    """The accepted groups of differences. A group that occurs with several baselines is listed once for each of
    them."""
    reason: str
    """Why the differences are wanted."""
    user_id: str | None
    """The id of the person who accepted. Null for an API key."""
    accepted_by: str
    """The e-mail address of the person, or `key` and the name of the API key."""
    ended_at: datetime | None
    """When the acceptance ended because a deployment of the configuration became current. Null until then."""
    created_at: datetime
    """When the acceptance was created."""


class Agent(Model, kw_only=True):
    """An agent.

    `last_failed` keeps the last failure, even if the agent has returned to an earlier bundle since.
    """

    id: str
    """The id of the agent, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the agent belongs to."""
    name: str
    """The agent's name, unique in the environment."""
    hostname: str
    """The host name that the agent reported when it enrolled. Empty if it reported none."""
    labels: dict[str, str]
    """The agent's labels: up to 64 key-value pairs, which selectors match."""
    status: str | None
    """The status that the last heartbeat reported. Null before the first heartbeat."""
    agent_version: str | None
    """The version of the agent program. Null before the first heartbeat."""
    liveness: str
    """Whether the agent's heartbeats arrive on time. Without a heartbeat, an agent is `stale` after three heartbeat
    intervals and `offline` after ten."""
    drifted: bool
    """Whether the agent does not run the bundle that it should run. False if it should run none."""
    last_seen_at: datetime | None
    """When the last heartbeat arrived. Null before the first heartbeat."""
    progress: str
    """The agent's progress on its current offer: `pending` if it has no offer."""
    desired: DesiredState | None
    """The bundle that the agent should run. Null if it should run none."""
    attempted: BundleState | None
    """The bundle that the agent last reported progress on. Null if it has reported none."""
    running: RunningState | None
    """The bundle that the agent runs, according to its last heartbeat. Null if it runs none, or before the first
    heartbeat."""
    last_failed: FailedState | None
    """The bundle that last failed on the agent. Null if none has failed."""
    report: dict[str, Any]
    """Other fields of the last heartbeat, such as tuning, resources and pipeline counters. Empty before the first
    heartbeat."""
    drained_at: datetime | None
    """When the agent was drained. Null if it is not drained."""
    drain_reason: str
    """Why the agent was drained. Empty if it is not drained, or if no reason was given."""
    clone_suspected_at: datetime | None
    """When the service detected that two machines seem to use the agent's key: a `boot_id` that had been replaced
    was reported again within 24 hours. Null if no clone is suspected. Until a person rotates the key with `mode:
    now`, which clears this field, the agent cannot rotate the key itself."""
    created_at: datetime
    """When the agent was created."""
    updated_at: datetime
    """When the agent was last changed."""


class AgentSummary(Model, kw_only=True):
    """The number of enrolled agents in the environment: in total, and by version, label and other attributes."""

    total: int
    """The number of all enrolled agents."""
    liveness: dict[str, int]
    """The number of agents by liveness."""
    drifted: int
    """The number of agents that do not run the bundle that they should run."""
    cloned: int
    """The number of agents with a suspected clone."""
    status: dict[str, int]
    """The number of agents by the status in their last heartbeat. Agents that have reported no status are not
    counted."""
    versions: list[VersionCount]
    """The number of agents by running version, the most frequent first, at most 50. Agents that run nothing are not
    counted."""
    labels: dict[str, dict[str, int]]
    """The number of agents by label key and value, the most frequent first. At most 200 keys, with at most 50
    values each."""


class AgentTuningRequest(Model, kw_only=True):
    """How much of the tuning profile the agent could apply. Unknown keys are ignored."""

    profile: str | UnsetType = UNSET
    """The name of the tuning profile."""
    applied: dict[str, Any] | UnsetType = UNSET
    """The settings that the agent applied."""
    degraded: list[UnmetSettingRequest] | UnsetType = UNSET
    """The settings that the agent applied in part."""
    failed: list[UnmetSettingRequest] | UnsetType = UNSET
    """The settings that the agent could not apply."""


class Artifact(Model, kw_only=True):
    id: str
    """The id of the artifact, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the artifact belongs to."""
    kind: str
    """The kind of the artifact."""
    status: str
    """The status of the artifact: `received` until it is checked, then `verified` or `rejected`."""
    reasons: list[Rejection]
    """Why the artifact was rejected, or why its check cannot continue. Otherwise empty. `check_failed`: the check
    failed repeatedly; upload the same file again or retry the job in the console. `check_delayed`: the check waits
    until the control plane's database and storage are available."""
    agent_id: str
    """The id of the agent that uploaded the artifact. If the artifact has an `origin`, this is the agent of the
    original artifact."""
    deployment_id: str | None
    """The id of the deployment that ran when the data was captured. Null if the agent reported none, or if the
    deployment was deleted."""
    version_id: str | None
    """The id of the version that produced the incident bundle. Null before the check, for other kinds, for rejected
    artifacts, and if no version had the spec hash at the time of the check."""
    spec_hash: str | None
    """The spec hash of the pipeline that ran. Null if unknown."""
    content_hash: str
    """The SHA-256 of the content."""
    size_bytes: int
    """The size of the content in bytes."""
    derived_bytes: int
    """The disk space in bytes that the unpacked files and the indexes of an incident bundle use. It is 0 while the
    server keeps none of them. They are rebuilt when the capture is read."""
    captured_at: datetime
    """When the data was captured."""
    metadata: dict[str, Any]
    """The metadata that the agent sent with the upload. Empty if it sent none."""
    origin: Origin | None
    """The original artifact, of which this artifact contains only some records. Null if an agent uploaded this
    artifact."""
    created_at: datetime
    """When the artifact was created."""


class AuditEvent(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the audit event, a UUIDv7. Ids sort by creation time."""
    timestamp: datetime
    """When the event was recorded."""
    actor: AuditActor
    """Who caused the event."""
    action: str
    """The action, such as `deployment.create`."""
    outcome: str
    """Whether the action succeeded, was denied, or failed with an error."""
    resource_scope: AuditScope
    """The resource that the action affected. For a denial, the `kind` is `credential`, and the `id` is the actor's
    id."""
    request_id: str
    """The `X-Request-ID` of the request that caused the event. Empty if it was not recorded."""
    ip: str | None
    """The IP address of the client. Null if it was not recorded."""
    changes: dict[str, Any] | None
    """The changes by field. Secrets are omitted. If the changes exceed 8 KiB, the longest values are replaced by
    the `size` in bytes and the `sha256` of their JSON without spaces and with sorted keys. If that is not enough,
    all changes together are replaced in this way. If an organization key repeats an event in the same minute, all
    repetitions are recorded as one event after that minute, with their `count` and the `last` values.
    `exportAuditEvents` returns the changes even if they are too large for a list. In a list, this field is null if
    it is larger than 4 KiB."""
    seal: AuditSeal | None
    """The event's position in the ledger. Null until the event is sealed, usually within a few seconds."""


class BisectedVersion(Model, kw_only=True):
    version_id: str
    """The id of the version."""
    number: int
    """The number of the version."""
    verdict: str | None
    """The verdict on the version. `untestable`: its replay failed for a reason other than a stage error. Null if
    there is none, for example because the version was not replayed."""
    replay_id: str | None
    """The id of the replay through the version. Null if there is none."""
    no_parameters: list[str]
    """The ids of the first ten stages that let every record pass because they have no parameters. Empty until there
    is a verdict. The `notes` of the replay's result list all such stages."""


class Blocker(Model, kw_only=True):
    """One blocker of a deployment."""

    code: str
    """A stable code. `freeze_window`: a freeze window is open. `in_flight_limit`: as many deployments are under way
    as the environment permits. `pipeline_busy`: another deployment of the pipeline comes first. `agents_busy`:
    another deployment with some of the agents comes first. `start_at`: the start time has not been reached.
    `wave_hold`: the next wave waits for approval or a manual start. `too_few_reviewers`: fewer reviewers than
    required have approved or can still approve. `replay_gate.running`: the regression has not finished.
    `replay_gate.differs`: differences are not accepted, or are too many to be grouped. `replay_gate.failed`: the
    candidate failed or is unstable for a fixture, the candidate needs too much work, or the regression has no
    result. `replay_gate.too_few_fixtures`: the regression has too few verdicts. `held_up`: the deployment's job
    failed permanently, the job waits for the control plane's database or storage, or agents cannot download the
    bundle."""
    detail: str
    """The reason as a sentence."""
    until: datetime | None
    """When the blocker is expected to end. For the replay gate: when the deployment fails if the blocker still
    exists. Null if there is no such time or it is not known."""
    ids: list[str]
    """The ids of the other deployments that this one waits for. Empty for all codes except `in_flight_limit`,
    `pipeline_busy` and `agents_busy`."""


class Cause(Model, kw_only=True):
    """One cause of failures and the agents that failed for it. The cause `other` combines the rarer causes."""

    reason: str
    """The `reason` of the failures. `other` stands for all causes after the 50 most frequent ones."""
    detail: str
    """The `detail` of the failures, with numbers, ids and hashes masked. It may be truncated. Empty for `other`,
    and if the agents reported no detail."""
    count: int
    """The number of agents whose latest failure to activate the bundle, or whose latest failure to roll back, had
    this cause. Includes agents that have been retried or rolled back since."""
    agents: list[str]
    """The ids of the first five agents that `count` includes. Empty for `other`."""


class Change(Model, kw_only=True):
    change: str
    """Whether the part was added, removed or changed."""
    what: str
    """The kind of part that changed."""
    name: str
    """The name of the part."""
    old: str | int | None
    """The part's value before the change. Null if the part was added, or is a `dependency`."""
    new: str | int | None
    """The part's value after the change. Null if the part was removed, or is a `dependency`."""


class ChatDelivery(Model, kw_only=True):
    id: str
    """The id of the chat delivery, a UUIDv7. Ids sort by creation time."""
    event: str | None
    """The type of the event. Null for a test message."""
    text: str | None
    """A short text that says what happened. Null for a test message."""
    status: str
    """Whether the delivery is pending, was delivered, or failed permanently."""
    attempts: list[ChatAttempt]
    """The latest attempts, oldest first. At most 50 are kept."""
    next_attempt_at: datetime | None
    """When the next attempt is due if the chat webhook is enabled. Null after the delivery has succeeded or failed
    permanently."""
    finished_at: datetime | None
    """When the message was delivered, or when the delivery failed permanently. Null while the delivery is pending."""
    created_at: datetime
    """When the chat delivery was created."""


class ConfigBundle(Model, kw_only=True):
    id: str
    """The id of the config bundle, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the config bundle belongs to."""
    name: str
    """The config bundle's name, unique in the environment."""
    version_id: str
    """The id of the version that the config bundle runs."""
    spec_hash: str
    """The SHA-256 of the canonical spec: `sha256:` and 64 lowercase hexadecimal digits."""
    tuning_profile: str
    """How the runtime uses the host's cores. Defaults to `default`."""
    wait: str
    """How the runtime waits for records: by sleeping (`backoff`) or by occupying a core (`spin`). Defaults to the
    value of the tuning profile."""
    stage_config: dict[str, Any]
    """The parameters of the stages, by stage id."""
    adapters: Adapters
    """The adapters with which the pipeline reads and writes records."""
    env: dict[str, str | Env]
    """Environment variables. A value is a string, or `{"secret_ref": "NAME"}` for a secret on the host of the
    agent."""
    snapshot: Snapshot
    """Whether and how often the runtime takes snapshots of its state."""
    required_capabilities: list[str]
    """The capabilities that an approval of this config bundle must permit."""
    config_hash: str
    """The SHA-256 that identifies the content of the config bundle."""
    known_bad: bool
    """Whether the configuration is known bad in this environment and cannot be deployed."""
    origin: str | None
    """If this config bundle is a copy: the id of the original config bundle in another environment, even if the
    original was deleted. Null if this config bundle is not a copy."""
    missing_secrets: list[str] | None
    """A warning about a copy: the names of secrets to which the copy refers, but no other config bundle of this
    environment (at most 1,000). The agents' hosts may lack these secrets. Empty if the config bundle is not a copy.
    Null in a list."""
    warnings: list[ConfigWarning] | None
    """Warnings about the config bundle: one for each stage that has no parameters although its op needs some (at
    most 100). Null in a list."""
    created_by: str
    """Who created the config bundle: an e-mail address, or `key` and the name of an organization API key."""
    created_at: datetime
    """When the config bundle was created."""


class DeviceToken(Model, kw_only=True):
    access_token: str
    """A user token for the API."""
    token_type: str
    """Always `Bearer`."""
    expires_in: int
    """The number of seconds for which the token is valid."""
    expires_at: datetime
    """When the token expires."""
    user: User
    """The person who allowed the sign-in."""


class Diagnostic(Model, kw_only=True):
    """A finding of the compiler at a place in the plan."""

    severity: str
    """The severity of the finding. Only `error` prevents the plan from compiling."""
    code: str
    """A stable code, such as `graph.cycle`."""
    pointer: str
    """The place in the plan, as a JSON Pointer. Empty for the whole plan."""
    message: str
    """A description of the finding."""
    hint: str | None
    """How to resolve the finding. Empty or null if there is no hint."""


class Diff(Model, kw_only=True):
    """The changes between two specs: as a list, and as a unified diff of their canonical texts."""

    against: str
    """The id of the version to which the changes are relative."""
    changes: list[Change]
    """The changes, one for each part that differs."""
    unified: str
    """The unified diff of the canonical texts. Empty if the texts are equal."""
    truncated: bool
    """Whether changes or lines at the end are left out. `changes` and `unified` are each limited to 1.5 MiB of
    JSON. To see everything, compare the canonical texts."""


class DifferenceExample(Model, kw_only=True):
    ingress: str
    """The ingress of the input record."""
    sequence: int
    """The sequence number of the input record."""
    before: ShownPayload | None
    """The output record, stop or side effect of the compared configuration. Null if it has none, if the payload is
    left out (see `truncated`), and for callers without the permission `environment:operate`."""
    after: ShownPayload | None
    """The output record, stop or side effect of the candidate. Null in the same cases as `before`."""
    stage: str | None
    """The id of the stage that dropped the record, stopped the pipeline or has the side effect. Otherwise, the id
    of the first stage that changed the record differently. Null if it is unknown."""


class DifferenceGroup(Model, kw_only=True):
    id: str
    """The id of the group. Equal differences have the same id in all regressions."""
    egress: str | None
    """The egress at which the outputs differ. Null for a stop or a side effect."""
    kind: str
    """What differs. `changed`: members of a JSON output record. `bytes`: the bytes of an output record whose JSON
    values are equal or cannot be compared. `missing`: only the compared configuration has the output record.
    `extra`: only the candidate has the output record. `stop`: whether or where the pipeline stops. `action`: a side
    effect."""
    pointers: list[str]
    """JSON Pointers to the members that differ, with `*` for any item of an array. Empty unless `kind` is
    `changed`."""
    code: str | None
    """A stable code for the reason of a drop or a stage error, or the op of a side effect. Null if there is none."""
    count: int
    """The number of differences in all comparisons."""
    baselines: list[GroupBaseline]
    """The number of differences in the comparison with each configuration."""
    fixture_count: int
    """The number of fixtures that show the difference."""
    fixtures: list[GroupFixture]
    """The first fixtures that show the difference, at most five."""
    example: DifferenceExample | None
    """The first difference of the group. Null if the environment no longer has the capture, or if the example is
    not stored: its capture or verdict was deleted, or the organization has too many examples."""


class Draft(Model, kw_only=True):
    id: str
    """The id of the draft, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the draft belongs to."""
    name: str
    """The name of the draft, unique in the environment. The name of the pipeline is in the plan."""
    plan: dict[str, Any]
    """The plan of the pipeline."""
    revision: int
    """A number that increases with every change to the draft."""
    diagnostics: list[Diagnostic]
    """The compiler's findings when the plan was last saved."""
    spec_hash: str | None
    """The spec hash of the compiled plan. Null if the plan does not compile."""
    created_at: datetime
    """When the draft was created."""
    created_by: str
    """Who created the draft: an e-mail address, or `key` and the name of an organization API key."""
    updated_at: datetime
    """When the draft was last changed."""
    updated_by: str
    """Who last changed the draft: an e-mail address, or `key` and the name of an organization API key."""


class Failure(Model, kw_only=True):
    """An agent's failure in a deployment. It is kept when the agent is retried or rolled back."""

    reason: str
    """`reported`: the agent reported that it could not activate the bundle. `timeout`: the agent did not finish in
    time. `rollback_reported`: the agent reported that it could not roll back. `rollback_timeout`: the agent did not
    finish its rollback in time."""
    detail: str
    """The detail that the agent reported, which may be empty. After a timeout: the time limit in words."""
    at: datetime
    """When the failure was recorded."""


class Finding(Model, kw_only=True):
    """One reason of an explanation, with the ids of the resources that the reason is about."""

    code: str
    """A stable code for the reason."""
    detail: str
    """The reason as a sentence."""
    deployment_id: str | None
    """The id of the deployment that the reason is about. Null if it is not about a deployment."""
    approval_id: str | None
    """The id of the approval that the reason is about. Null if it is not about an approval."""
    config_hash: str | None
    """The config hash that the reason is about. Null if it is not about a configuration."""


class FreezeWindow(Model, kw_only=True):
    """A period in which no deployment starts, unless its request overrides the window (`override_freeze`)."""

    start: str
    """An RFC 3339 time, whose seconds and offset are optional. Without an offset, the time is a wall-clock time in
    `time_zone` and follows changes of the zone's rules. The year must be from 2000 to 2999. The time is stored as
    it was sent."""
    end: str
    """An RFC 3339 time, whose seconds and offset are optional. Without an offset, the time is a wall-clock time in
    `time_zone` and follows changes of the zone's rules. The year must be from 2000 to 2999. The time is stored as
    it was sent."""
    time_zone: str
    """The IANA name of the time zone for times without an offset. A recurring window repeats at the same wall-clock
    times in this time zone."""
    reason: str
    """Why no deployment may start. This text is shown to people whose deployments are refused or waiting."""
    recurrence: str | UnsetType | None = UNSET
    """How often the window repeats. Null if it does not repeat."""


class FreezeWindowRequest(Model, kw_only=True):
    """A period in which no deployment starts, unless its request overrides the window (`override_freeze`)."""

    start: str
    """An RFC 3339 time, whose seconds and offset are optional. Without an offset, the time is a wall-clock time in
    `time_zone` and follows changes of the zone's rules. The year must be from 2000 to 2999. The time is stored as
    it was sent."""
    end: str
    """An RFC 3339 time, whose seconds and offset are optional. Without an offset, the time is a wall-clock time in
    `time_zone` and follows changes of the zone's rules. The year must be from 2000 to 2999. The time is stored as
    it was sent."""
    reason: str
    """Why no deployment may start. This text is shown to people whose deployments are refused or waiting."""
    time_zone: str | UnsetType = "UTC"
    """The IANA name of the time zone for times without an offset. A recurring window repeats at the same wall-clock
    times in this time zone."""
    recurrence: str | UnsetType | None = UNSET
    """How often the window repeats. Null if it does not repeat."""


class Health(Model, kw_only=True):
    status: str
    """The state of the service."""


class HeartbeatAnswer(Model, kw_only=True):
    server_time: datetime
    """The server's time."""
    next_heartbeat_s: float
    """The seconds after which the agent should send its next heartbeat."""
    desired: Offer | None
    """The bundle that the agent should run. Null if it should run none, or while its offer is held after a restore."""
    signing_key_etag: str
    """The ETag of the signing keys, without its quotation marks. If it has changed, fetch the keys again."""
    commands: list[str]
    """Commands for the agent. `rotate_key`: fetch a new key with `rotateOwnKey`, store it, and use it from then on.
    `capture`: fetch the request with `getPendingCapture`, and upload the capture. A command is repeated until it is
    carried out or obsolete. Ignore unknown commands."""


class InvitedMember(Model, kw_only=True):
    """A member who has just been invited."""

    id: str
    """The id of the membership, a UUIDv7. Ids sort by creation time."""
    user_id: str
    """The person's id."""
    email: str
    """The person's e-mail address. In responses, empty if it is unknown."""
    role: str
    """The person's role. `org_admin` can only be granted in an organization, not in a project."""
    project_id: str | None
    """The id of the project in which the role applies. Null if it applies to the whole organization."""
    created_at: datetime
    """When the membership was created."""
    updated_at: datetime
    """When the membership was last changed."""
    invitation_url: str | None
    """A link with which the person signs in. It works once, within 7 days, and is returned only in this response.
    Null if a mail server is configured, if the caller is not an `org_admin` of the organization, or if no link may
    be created for the person's account, for example because the person has already signed in with a confirmed
    address or has a role in another organization."""


class JournalPage(Model, kw_only=True):
    lane: str
    """The lane whose journal is read."""
    total: int
    """The number of records in the journal."""
    results: list[JournalRecord]
    """The records of this page."""
    truncated: bool
    """Whether the page has fewer than `limit` records because a response is limited to 4 MiB."""
    next_after: int | None
    """The value of `after` for the next page. Null on the last page."""


class Jwk(Model, kw_only=True):
    kid: str
    """The key's id: its RFC 7638 thumbprint."""
    kty: str
    """The key type."""
    crv: str
    """The elliptic curve."""
    x: str
    """The public key in base64url."""
    alg: str
    """The signature algorithm."""
    use: str
    """The purpose of the key: signatures."""
    status: str
    """The key's status: `next`, `active`, `retiring` or `retired`."""
    not_before: datetime
    """When the key starts to sign, unless it is withdrawn first."""
    not_after: datetime | None
    """The key verifies only signatures that were made before this time. Null if no time is set."""


class KeySet(Model, kw_only=True):
    """The organization's published signing keys."""

    active_kid: str
    """The id of the key that currently signs."""
    keys: list[Jwk]
    """All published keys."""


class ListedAgent(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the agent, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the agent belongs to."""
    name: str
    """The agent's name, unique in the environment."""
    hostname: str
    """The host name that the agent reported when it enrolled. Empty if it reported none."""
    labels: dict[str, str]
    """The agent's labels: up to 64 key-value pairs, which selectors match."""
    status: str | None
    """The status that the last heartbeat reported. Null before the first heartbeat."""
    agent_version: str | None
    """The version of the agent program. Null before the first heartbeat."""
    liveness: str
    """Whether the agent's heartbeats arrive on time. Without a heartbeat, an agent is `stale` after three heartbeat
    intervals and `offline` after ten."""
    drifted: bool
    """Whether the agent does not run the bundle that it should run. False if it should run none."""
    last_seen_at: datetime | None
    """When the last heartbeat arrived. Null before the first heartbeat."""
    progress: str
    """The agent's progress on its current offer: `pending` if it has no offer."""
    desired: DesiredState | None
    """The bundle that the agent should run. Null if it should run none."""
    attempted: BundleState | None
    """The bundle that the agent last reported progress on. Null if it has reported none."""
    running: RunningState | None
    """The bundle that the agent runs, according to its last heartbeat. Null if it runs none, or before the first
    heartbeat."""
    last_failed: FailedState | None
    """The bundle that last failed on the agent. Null if none has failed."""
    report: dict[str, Any] | None
    """Other fields of the last heartbeat, such as tuning, resources and pipeline counters. Empty before the first
    heartbeat. In a list, this field is null if it is larger than 4 KiB; `getAgent` returns it."""
    drained_at: datetime | None
    """When the agent was drained. Null if it is not drained."""
    drain_reason: str
    """Why the agent was drained. Empty if it is not drained, or if no reason was given."""
    clone_suspected_at: datetime | None
    """When the service detected that two machines seem to use the agent's key: a `boot_id` that had been replaced
    was reported again within 24 hours. Null if no clone is suspected. Until a person rotates the key with `mode:
    now`, which clears this field, the agent cannot rotate the key itself."""
    created_at: datetime
    """When the agent was created."""
    updated_at: datetime
    """When the agent was last changed."""


class ListedArtifact(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the artifact, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the artifact belongs to."""
    kind: str
    """The kind of the artifact."""
    status: str
    """The status of the artifact: `received` until it is checked, then `verified` or `rejected`."""
    reasons: list[Rejection] | None
    """Why the artifact was rejected, or why its check cannot continue. Otherwise empty. `check_failed`: the check
    failed repeatedly; upload the same file again or retry the job in the console. `check_delayed`: the check waits
    until the control plane's database and storage are available. In a list, this field is null if it is larger than
    4 KiB; `getArtifact` returns it."""
    agent_id: str
    """The id of the agent that uploaded the artifact. If the artifact has an `origin`, this is the agent of the
    original artifact."""
    deployment_id: str | None
    """The id of the deployment that ran when the data was captured. Null if the agent reported none, or if the
    deployment was deleted."""
    version_id: str | None
    """The id of the version that produced the incident bundle. Null before the check, for other kinds, for rejected
    artifacts, and if no version had the spec hash at the time of the check."""
    spec_hash: str | None
    """The spec hash of the pipeline that ran. Null if unknown."""
    content_hash: str
    """The SHA-256 of the content."""
    size_bytes: int
    """The size of the content in bytes."""
    derived_bytes: int
    """The disk space in bytes that the unpacked files and the indexes of an incident bundle use. It is 0 while the
    server keeps none of them. They are rebuilt when the capture is read."""
    captured_at: datetime
    """When the data was captured."""
    metadata: dict[str, Any] | None
    """The metadata that the agent sent with the upload. Empty if it sent none. In a list, this field is null if it
    is larger than 4 KiB; `getArtifact` returns it."""
    origin: Origin | None
    """The original artifact, of which this artifact contains only some records. Null if an agent uploaded this
    artifact."""
    created_at: datetime
    """When the artifact was created."""


class ListedBisect(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the bisect, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the bisect belongs to."""
    status: str
    """The status of the bisect."""
    artifact_id: str
    """The id of the artifact that is replayed."""
    predicate: str | Predicate2
    """The condition under which a version is bad."""
    exhaustive: bool
    """Whether all `versions` are replayed."""
    outcome: str | None
    """The outcome of the search. `found`: the first bad version is known. `no_change`: the oldest and newest tested
    versions have the same verdict, and no first bad version was found. `inverted`: the oldest tested version is bad
    and the newest is good. `inconclusive`: too few versions could be tested to find the first bad version. Null
    until the bisect has succeeded."""
    versions: list[BisectedVersion] | None
    """The versions from oldest to newest, with the verdicts so far. In a list, this field is null if it is larger
    than 4 KiB; `getBisect` returns it."""
    first_bad: str | None
    """The id of the first version that is known to be bad after a good version. Null until the bisect has
    succeeded. Also null if the outcome is `no_change` or `inverted`, or if an `inconclusive` search found no such
    version."""
    last_good: str | None
    """The id of the last version before `first_bad` that is known to be good. Null if `first_bad` is null."""
    diff: Diff | None
    """The changes from the last good to the first bad version. Null unless both are known. In a list, this field is
    null if it is larger than 4 KiB; `getBisect` returns it."""
    monotone: bool | None
    """Whether no good version follows a bad version. Null unless the bisect is exhaustive, has succeeded and could
    test at least two versions."""
    error: str | None
    """Why the bisect has no outcome. Null unless it failed or was canceled."""
    requested_by: str
    """Who requested the bisect: an e-mail address, or `key` and the name of an organization API key."""
    finished_at: datetime | None
    """When the bisect finished. Null until then."""
    created_at: datetime
    """When the bisect was created."""


class ListedConfigBundle(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the config bundle, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the config bundle belongs to."""
    name: str
    """The config bundle's name, unique in the environment."""
    version_id: str
    """The id of the version that the config bundle runs."""
    spec_hash: str
    """The SHA-256 of the canonical spec: `sha256:` and 64 lowercase hexadecimal digits."""
    tuning_profile: str
    """How the runtime uses the host's cores. Defaults to `default`."""
    wait: str
    """How the runtime waits for records: by sleeping (`backoff`) or by occupying a core (`spin`). Defaults to the
    value of the tuning profile."""
    stage_config: dict[str, Any] | None
    """The parameters of the stages, by stage id. In a list, this field is null if it is larger than 4 KiB;
    `getConfigBundle` returns it."""
    adapters: Adapters | None
    """The adapters with which the pipeline reads and writes records. In a list, this field is null if it is larger
    than 4 KiB; `getConfigBundle` returns it."""
    env: dict[str, Any] | None
    """Environment variables. A value is a string, or `{"secret_ref": "NAME"}` for a secret on the host of the
    agent. In a list, this field is null if it is larger than 4 KiB; `getConfigBundle` returns it."""
    snapshot: Snapshot
    """Whether and how often the runtime takes snapshots of its state."""
    required_capabilities: list[str] | None
    """The capabilities that an approval of this config bundle must permit. In a list, this field is null if it is
    larger than 4 KiB; `getConfigBundle` returns it."""
    config_hash: str
    """The SHA-256 that identifies the content of the config bundle."""
    known_bad: bool
    """Whether the configuration is known bad in this environment and cannot be deployed."""
    origin: str | None
    """If this config bundle is a copy: the id of the original config bundle in another environment, even if the
    original was deleted. Null if this config bundle is not a copy."""
    missing_secrets: list[str] | None
    """A warning about a copy: the names of secrets to which the copy refers, but no other config bundle of this
    environment (at most 1,000). The agents' hosts may lack these secrets. Empty if the config bundle is not a copy.
    Null in a list."""
    warnings: list[ConfigWarning] | None
    """Warnings about the config bundle: one for each stage that has no parameters although its op needs some (at
    most 100). Null in a list."""
    created_by: str
    """Who created the config bundle: an e-mail address, or `key` and the name of an organization API key."""
    created_at: datetime
    """When the config bundle was created."""


class ListedDraft(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the draft, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the draft belongs to."""
    name: str
    """The name of the draft, unique in the environment. The name of the pipeline is in the plan."""
    plan: dict[str, Any] | None
    """The plan of the pipeline. In a list, this field is null if it is larger than 4 KiB; `getDraft` returns it."""
    revision: int
    """A number that increases with every change to the draft."""
    diagnostics: list[Diagnostic] | None
    """The compiler's findings when the plan was last saved. In a list, this field is null if it is larger than 4
    KiB; `getDraft` returns it."""
    spec_hash: str | None
    """The spec hash of the compiled plan. Null if the plan does not compile."""
    created_at: datetime
    """When the draft was created."""
    created_by: str
    """Who created the draft: an e-mail address, or `key` and the name of an organization API key."""
    updated_at: datetime
    """When the draft was last changed."""
    updated_by: str
    """Who last changed the draft: an e-mail address, or `key` and the name of an organization API key."""


class ListedReplay(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the replay, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the replay belongs to."""
    status: str
    """The status of the replay."""
    mode: str
    """Whether side effects are performed (`execute`) or not (`dry_run`)."""
    artifact_id: str
    """The id of the artifact that is replayed."""
    version_id: str
    """The id of the version through which the records run."""
    config_bundle_id: str | None
    """The id of the config bundle in the request. Null if the request named none. The parameters are then those of
    the artifact or of its deployment and, for stages that have none there, those of `fallback_config_bundle_id`."""
    fallback_config_bundle_id: str | None
    """The id of the config bundle whose parameters are used for stages that have none in the artifact or its
    deployment. It is the newest config bundle of the version at the time of the request. If the replay repeats an
    earlier replay, the fallback config bundle of the earlier replay is used again. Null if the version has the
    artifact's spec or no config bundle, if the request had a `config_bundle_id`, or if a bisect requested the
    replay."""
    journal_lane: str | None
    """The ingress whose journal is replayed. Null if all journals are replayed together."""
    last_n: int | None
    """The number of records to replay from the end of the input. Null if all records are replayed."""
    approval_id: str | None
    """The id of the replay's approval. Null if it has none."""
    progress: ReplayProgress | None
    """The progress of the replay. Null unless it is running. Both numbers are 0 for an execute replay."""
    result: dict[str, Any] | None
    """The number and the digest of each egress's records, the counters of each stage, and the first divergence.
    Each of the result's `notes` has a `code`, a `name` and a `count`. A note with the code `no_parameters` is about
    a stage that lacks the parameters its op needs: `name` is its id, and `count` is the number of records that the
    stage let pass unchanged. The `kind` of the divergence is `changed` if members of a JSON record differ, `bytes`
    if the records differ, but their JSON values are equal or cannot be compared, `missing` if only the capture has
    the record, and `extra` if only the replay has the record. The divergence's `pointers` are the sorted JSON
    Pointers of the changed members, with array indices written as `*`. If there are more than 64 pointers, or they
    are long, their common parent replaces them. The list is empty for the other kinds. In results of earlier
    releases, `changed` includes `bytes`, and `pointers` is null. The divergence's `diff` and `pointers` are null
    for callers without the permission `environment:operate`. The whole result is null if the replay has not
    finished or has no result. In a list, this field is null if it is larger than 4 KiB; `getReplay` returns it."""
    audit: dict[str, Any] | None
    """The selected input, the policy, and each side effect with the decision about it. Null if the replay has not
    finished or has no result. In a list, this field is null if it is larger than 4 KiB; `getReplay` returns it."""
    warnings: list[str] | None
    """Problems that did not stop the replay, such as a truncated last record in a journal. Empty until the replay
    has finished. In a list, this field is null if it is larger than 4 KiB; `getReplay` returns it."""
    error: str | None
    """Why the replay failed or was denied: a text, or a code such as `approval.denied`. Null for any other replay."""
    error_code: str | None
    """A stable code for the failure, such as `stage_error` or `cancelled`. Null if the replay did not fail, or if
    it could not run because of its approval or the environment's policy."""
    requested_by: str
    """Who requested the replay: an e-mail address, or `key` and the name of an organization API key."""
    started_at: datetime | None
    """When the replay started. Null until then."""
    finished_at: datetime | None
    """When the replay finished. Null until then."""
    created_at: datetime
    """When the replay was created."""


class MatrixDeployment(Model, kw_only=True):
    """An unfinished deployment."""

    deployment_id: str
    """The id of the deployment."""
    status: str
    """The status of the deployment."""


class Member(Model, kw_only=True):
    id: str
    """The id of the membership, a UUIDv7. Ids sort by creation time."""
    user_id: str
    """The person's id."""
    email: str
    """The person's e-mail address. In responses, empty if it is unknown."""
    role: str
    """The person's role. `org_admin` can only be granted in an organization, not in a project."""
    project_id: str | None
    """The id of the project in which the role applies. Null if it applies to the whole organization."""
    created_at: datetime
    """When the membership was created."""
    updated_at: datetime
    """When the membership was last changed."""


class NextEvent(Model, kw_only=True):
    """One expected event, with its time if that is known."""

    code: str
    """A stable code for the event."""
    detail: str
    """The event as a sentence."""
    at: datetime | None
    """When the event is expected. Null if the time is not known."""


class OrganizationKey(Model, kw_only=True):
    id: str
    """The id of the organization API key, a UUIDv7. Ids sort by creation time."""
    name: str
    """A name by which you recognize the key, unique among the organization's keys that are not revoked."""
    prefix: str
    """The first characters of the secret, by which you recognize the key."""
    expires_at: datetime
    """When the key expires."""
    last_used_at: datetime | None
    """When the key was last used, to the minute. Null if it was never used."""
    revoked_at: datetime | None
    """When the key was revoked. Null if it was not revoked."""
    created_at: datetime
    """When the organization API key was created."""
    role: str
    """The role of the key."""
    project_id: str | None
    """The id of the only project in which the key has its role. Null if the role applies to the whole organization."""
    created_by: str | None
    """The e-mail address of the person who created the key. If another organization API key created this key, the
    address of the person who created the other key. This person counts as the requester of everything that the key
    requests. Empty if the address is unknown. Null if the person is unknown. In that case, the key cannot request
    anything that needs an approval."""


class OrganizationKeyWithSecret(Model, kw_only=True):
    """This is the only response that contains the secret."""

    id: str
    """The id of the organization API key, a UUIDv7. Ids sort by creation time."""
    name: str
    """A name by which you recognize the key, unique among the organization's keys that are not revoked."""
    prefix: str
    """The first characters of the secret, by which you recognize the key."""
    expires_at: datetime
    """When the key expires."""
    last_used_at: datetime | None
    """When the key was last used, to the minute. Null if it was never used."""
    revoked_at: datetime | None
    """When the key was revoked. Null if it was not revoked."""
    created_at: datetime
    """When the organization API key was created."""
    role: str
    """The role of the key."""
    project_id: str | None
    """The id of the only project in which the key has its role. Null if the role applies to the whole organization."""
    created_by: str | None
    """The e-mail address of the person who created the key. If another organization API key created this key, the
    address of the person who created the other key. This person counts as the requester of everything that the key
    requests. Empty if the address is unknown. Null if the person is unknown. In that case, the key cannot request
    anything that needs an approval."""
    token: str
    """The secret. It is shown only in this response."""


class PacketGate(Model, kw_only=True):
    setting: str
    """The environment's `replay_gate` when the deployment was requested."""
    override: str | None
    """The reason to override the replay gate. Null if the deployment does not override it."""
    blockers: list[Blocker]
    """Why the replay gate blocks the deployment. Empty if it does not."""


class PacketGroup(Model, kw_only=True):
    id: str
    """The id of the group. Equal differences have the same id in all regressions."""
    egress: str | None
    """The egress at which the outputs differ. Null for a stop or a side effect."""
    kind: str
    """What differs. `changed`: members of a JSON output record. `bytes`: the bytes of an output record whose JSON
    values are equal or cannot be compared. `missing`: only the compared configuration has the output record.
    `extra`: only the candidate has the output record. `stop`: whether or where the pipeline stops. `action`: a side
    effect."""
    pointers: list[str]
    """JSON Pointers to the members that differ, with `*` for any item of an array. Empty unless `kind` is
    `changed`."""
    code: str | None
    """A stable code for the reason of a drop or a stage error, or the op of a side effect. Null if there is none."""
    count: int
    """The number of differences in all comparisons."""
    baselines: list[GroupBaseline]
    """The number of differences in the comparison with each configuration."""
    fixture_count: int
    """The number of fixtures that show the difference."""
    fixtures: list[GroupFixture]
    """The first fixtures that show the difference, at most five."""
    example: DifferenceExample | None
    """The first difference of the group. Null if the environment no longer has the capture, or if the example is
    not stored: its capture or verdict was deleted, or the organization has too many examples."""
    accepted: list[GroupAcceptance]
    """The acceptances of the difference. For each baseline from which the candidate differs in this way, the list
    contains an acceptance that counts for this deployment. If there is none, it contains the oldest valid
    acceptance for this baseline, if any."""
    counts: bool
    """Whether the difference is accepted for all baselines from which the candidate differs in this way, by
    acceptances that count for this deployment."""
    unseen: UnseenFixtures | None
    """The fixtures that show the difference in this regression, but did not show it in the other regressions in
    which it was accepted. In a deleted regression, no fixture counts as having shown it. There are none if the
    difference was not accepted or was accepted in this regression. A packet compares this regression with at most 5
    others. Null if the difference was accepted in a regression that is not compared, or if one of the regressions
    has too many results to compare."""
    explanations: list[str]
    """The requester's explanations of the difference."""


class PacketRegression(Model, kw_only=True):
    id: str
    """The id of the regression."""
    status: str
    """The status of the regression."""
    error: str | None
    """Why the regression was canceled or could not be completed. Otherwise null."""
    progress: PacketProgress
    """The progress of the regression."""
    fixtures: int
    """The number of fixtures of the pipeline that had not expired when the regression started. It is 0 until then."""
    vacuous: bool
    """Whether the regression was completed but tested nothing."""
    baselines: list[PacketBaseline]
    """The configurations that the candidate is compared with."""
    golden: OutcomeCount
    """The number of fixtures with each outcome in the comparison with golden results."""
    work: PacketWork
    """The work of the replays. Fixtures with golden results are not counted. The work is the same on every machine,
    and 0 until the regression has finished."""


class PaginatedAuditEventList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[AuditEvent]
    """The rows of this page."""


class PaginatedChatDeliveryList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[ChatDelivery]
    """The rows of this page."""


class PaginatedListedAgentList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[ListedAgent]
    """The rows of this page."""


class PaginatedListedArtifactList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[ListedArtifact]
    """The rows of this page."""


class PaginatedListedBisectList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[ListedBisect]
    """The rows of this page."""


class PaginatedListedConfigBundleList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[ListedConfigBundle]
    """The rows of this page."""


class PaginatedListedDraftList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[ListedDraft]
    """The rows of this page."""


class PaginatedListedReplayList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[ListedReplay]
    """The rows of this page."""


class PaginatedMemberList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[Member]
    """The rows of this page."""


class PaginatedOrganizationKeyList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[OrganizationKey]
    """The rows of this page."""


class PaginatedProjectList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[Project]
    """The rows of this page."""


class PaginatedRunningIntervalList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[RunningInterval]
    """The rows of this page."""


class PaginatedTimelineEntryList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[TimelineEntry]
    """The rows of this page."""


class PaginatedUserTokenList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[UserToken]
    """The rows of this page."""


class PaginatedWebhookList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[Webhook]
    """The rows of this page."""


class PipelineChanges(Model, kw_only=True):
    from_version: str | None
    """The version with which `to_version` is compared, normally the version of the replaced deployment. Null if
    there is none."""
    to_version: str
    """The version that is deployed."""
    changes: list[Change]
    """The parts of the pipeline that change. Empty if `from_version` is null."""


class Preview(Model, kw_only=True):
    """The result of a compilation that stores nothing."""

    ok: bool
    """Whether the plan compiles."""
    target: str | None
    """The target that the plan was compiled for: the `target` of the request or, by default, the plan's own target.
    Null if there is no valid target."""
    spec_kv: str | None
    """The canonical text of the spec. Null if the plan does not compile or the value is too large (see
    `truncated`)."""
    spec_hash: str | None
    """The spec hash. Null if the plan does not compile."""
    spec: dict[str, Any] | None
    """The spec as JSON. Null if the plan does not compile or the value is too large (see `truncated`)."""
    diagnostics: list[Diagnostic]
    """The compiler's findings in the plan."""
    graph: Graph | None
    """The compiled graph. Null if the plan does not compile or the value is too large (see `truncated`)."""
    dot: str | None
    """The compiled graph in the DOT language. Null if the plan does not compile or the value is too large (see
    `truncated`)."""
    truncated: bool
    """Whether one or more of `spec_kv`, `spec`, `graph` and `dot` are null because the response would exceed 4 MiB.
    To read the whole spec, save the plan, promote the draft, and get the version."""


class Ready(Model, kw_only=True):
    status: str
    """The state of the service."""
    version: str
    """The release that this host runs."""
    sealing: Sealing
    """How this host isolates the processes that read uploads and compile plans."""


class RegressionResult(Model, kw_only=True):
    fixture_id: str
    """The id of the fixture, even if it was deleted."""
    fixture_name: str
    """The name of the fixture when the regression started."""
    baseline: str | None
    """The config hash that the candidate was compared with. Null for a fixture with a golden result."""
    outcome: str | None
    """The verdict. `failed`: the candidate cannot run, cannot use the records or exceeded a limit, or the process
    of the test failed twice. `unstable`: a stage gave different results for the same records. `not_tested`: the
    fixture was deleted or has expired, its `expect` was changed to or from `same`, its artifact is no longer stored
    or cannot be read, or the compared configuration was deleted or cannot run. Null until the verdict is known."""
    groups: list[str]
    """The ids of the groups of differences that the fixture shows. Empty unless `outcome` is `different`."""
    error: str | None
    """Why the outcome is `failed` or `not_tested`, or why a difference from a golden result belongs to no group.
    Otherwise null."""
    stage: str | None
    """The id of a stage whose input or output differed between two runs with the same records. Null if `outcome` is
    not `unstable`, or if no such stage is known."""


class RemovedFixture(Model, kw_only=True):
    fixture_id: str
    """The id of the fixture."""
    name: str
    """The name of the fixture."""
    why: str
    """Whether the fixture was deleted or has expired."""
    removed_at: datetime
    """When the fixture was deleted or expired."""
    removed_by: str | None
    """Who deleted the fixture: an e-mail address, or `key` and the name of an organization API key. Null if it
    expired."""


class Replay(Model, kw_only=True):
    id: str
    """The id of the replay, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the replay belongs to."""
    status: str
    """The status of the replay."""
    mode: str
    """Whether side effects are performed (`execute`) or not (`dry_run`)."""
    artifact_id: str
    """The id of the artifact that is replayed."""
    version_id: str
    """The id of the version through which the records run."""
    config_bundle_id: str | None
    """The id of the config bundle in the request. Null if the request named none. The parameters are then those of
    the artifact or of its deployment and, for stages that have none there, those of `fallback_config_bundle_id`."""
    fallback_config_bundle_id: str | None
    """The id of the config bundle whose parameters are used for stages that have none in the artifact or its
    deployment. It is the newest config bundle of the version at the time of the request. If the replay repeats an
    earlier replay, the fallback config bundle of the earlier replay is used again. Null if the version has the
    artifact's spec or no config bundle, if the request had a `config_bundle_id`, or if a bisect requested the
    replay."""
    journal_lane: str | None
    """The ingress whose journal is replayed. Null if all journals are replayed together."""
    last_n: int | None
    """The number of records to replay from the end of the input. Null if all records are replayed."""
    approval_id: str | None
    """The id of the replay's approval. Null if it has none."""
    progress: ReplayProgress | None
    """The progress of the replay. Null unless it is running. Both numbers are 0 for an execute replay."""
    result: dict[str, Any] | None
    """The number and the digest of each egress's records, the counters of each stage, and the first divergence.
    Each of the result's `notes` has a `code`, a `name` and a `count`. A note with the code `no_parameters` is about
    a stage that lacks the parameters its op needs: `name` is its id, and `count` is the number of records that the
    stage let pass unchanged. The `kind` of the divergence is `changed` if members of a JSON record differ, `bytes`
    if the records differ, but their JSON values are equal or cannot be compared, `missing` if only the capture has
    the record, and `extra` if only the replay has the record. The divergence's `pointers` are the sorted JSON
    Pointers of the changed members, with array indices written as `*`. If there are more than 64 pointers, or they
    are long, their common parent replaces them. The list is empty for the other kinds. In results of earlier
    releases, `changed` includes `bytes`, and `pointers` is null. The divergence's `diff` and `pointers` are null
    for callers without the permission `environment:operate`. The whole result is null if the replay has not
    finished or has no result."""
    audit: dict[str, Any] | None
    """The selected input, the policy, and each side effect with the decision about it. Null if the replay has not
    finished or has no result."""
    warnings: list[str]
    """Problems that did not stop the replay, such as a truncated last record in a journal. Empty until the replay
    has finished."""
    error: str | None
    """Why the replay failed or was denied: a text, or a code such as `approval.denied`. Null for any other replay."""
    error_code: str | None
    """A stable code for the failure, such as `stage_error` or `cancelled`. Null if the replay did not fail, or if
    it could not run because of its approval or the environment's policy."""
    requested_by: str
    """Who requested the replay: an e-mail address, or `key` and the name of an organization API key."""
    started_at: datetime | None
    """When the replay started. Null until then."""
    finished_at: datetime | None
    """When the replay finished. Null until then."""
    created_at: datetime
    """When the replay was created."""


class RequestedCapture(Model, kw_only=True):
    id: str
    """The id of the requested capture, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the requested capture belongs to."""
    agent_id: str
    """The id of the agent that should upload the capture."""
    status: str
    """The status of the request. `requested`: the agent has not uploaded the capture yet. `uploaded`: the agent has
    uploaded it. `expired`: the agent did not upload it within an hour."""
    reason: str
    """Why the capture is needed."""
    last_n: int | None
    """The number of records to capture from the end of each journal. Null for all records."""
    artifact_id: str | None
    """The id of the uploaded artifact, even if it was uploaded after the request had expired. Null before the
    upload, and after the artifact was deleted. The artifact's `kind` is normally `incident_bundle`. It is
    `diagnostic` if the agent could not upload a capture. The field `problem` in the diagnostic's metadata then
    states the cause."""
    requested_by: str
    """Who requested the requested capture: an e-mail address, or `key` and the name of an organization API key."""
    expires_at: datetime
    """When the request expires, an hour after it was created."""
    uploaded_at: datetime | None
    """When the artifact was uploaded. Null before the upload."""
    created_at: datetime
    """When the requested capture was created."""


class RequestedRotation(Model, kw_only=True):
    agent_id: str
    """The id of the agent."""
    mode: str
    """Always `by_agent`: the agent fetches the new key itself."""


class Role(Model, kw_only=True):
    organization_id: str
    """The id of the organization in which the role applies."""
    project_id: str | None
    """The id of the project in which the role applies. Null if it applies to the whole organization."""
    role: str
    """The role."""


class Series(Model, kw_only=True):
    """Values by slots of 15 minutes."""

    step_s: int
    """The length of a slot in seconds: always 900."""
    points: list[SeriesPoint]
    """One point for each slot in the time range, oldest first, even if no heartbeat was received in the slot. Slots
    older than 90 days are left out, so there are at most 8,640 points. For an environment with more than 1,000
    agents, the newest slots are left out as well (see `getEnvironmentSeries`)."""


class SignedIn(Model, kw_only=True):
    """The user token that a sign-in returns to programs. Browsers get a session instead."""

    token: str
    """A user token for the API."""
    expires_at: datetime
    """When the token expires."""
    user: User
    """The person who signed in."""


class SigningKey(Model, kw_only=True):
    """A signing key. Its private key is never returned."""

    id: str
    """The id of the signing key, a UUIDv7. Ids sort by creation time."""
    kid: str
    """The key's id: its RFC 7638 thumbprint."""
    status: str
    """`next`: published, but not signing yet. `active`: signs. `retiring`: only verifies. `retired`: only verifies
    signatures that contain the time of signing, if that time is before `not_after`."""
    not_before: datetime
    """When the key starts to sign, unless it is withdrawn first."""
    signs_until: datetime | None
    """When the key stops signing. Null if the key has no successor."""
    not_after: datetime | None
    """When the key is retired. Null if no time is set."""
    created_at: datetime
    """When the key was published."""


class Strategy(Model, kw_only=True):
    """How a deployment spreads over the agents of its target."""

    kind: str
    """Whether the deployment is offered to all agents in one wave (`all_at_once`) or in several `waves`."""
    failure_threshold_percent: int
    """The percentage of a wave's counted agents that may fail. If more of them fail, the deployment fails. Defaults
    to 0."""
    auto_rollback: bool
    """Whether the deployment is rolled back automatically, if possible, when too many agents fail, a wave is
    denied, or the configuration becomes known bad. Defaults to true for `waves` and to false for `all_at_once`."""
    percents: list[int] | UnsetType = UNSET
    """The cumulative percentage of the target's agents that each wave reaches, increasing to 100. Only for `waves`.
    Defaults to 5, 25 and 100."""
    holds: list[str | None] | UnsetType = UNSET
    """What must happen before each wave starts, once the previous wave has finished. One entry for each entry of
    `percents`. `manual`: somebody with the permission `environment:operate` starts the wave with `next-wave`.
    `approval`: people approve what the earlier waves did. Null: nothing. The first entry must be null. If a wave
    has no agents, its hold applies to the next wave that has agents. Only for `waves`. Defaults to no holds."""
    pause_s: int | UnsetType = UNSET
    """The pause between two waves, in seconds. Only for `waves`. Defaults to 0."""


class TracedStep(Model, kw_only=True):
    kind: str
    """Whether the step is at an ingress, stage, lane or egress."""
    id: str
    """The id of the ingress, stage, lane or egress."""
    lane: str | None
    """The lane of the record in this step. The schema permits null, but the value is never null."""
    json: Any
    """The record after this step as JSON. Null if it is incomplete or not valid JSON, if the server refuses the
    JSON, for example because of duplicate keys, or if a stage dropped the record or failed."""
    payload_base64: str | None
    """The record after this step in Base64, at most its first 64 KiB. Null if a stage dropped the record or failed."""
    truncated: bool
    """Whether only the first 64 KiB of the record are returned."""
    dropped: str | None
    """Why the record was dropped or stopped at this step. Null if it was not."""
    actions: list[dict[str, Any]]
    """The side effects of the record in this step. A trace lists them without performing them."""


class Tuning(Model, kw_only=True):
    """The tuning that the config bundle requests, and how much of it the agent reported to have applied."""

    requested: dict[str, str]
    """The `profile` and the `wait` that the config bundle requests."""
    applied: dict[str, Any]
    """The settings that the agent applied."""
    degraded: list[UnmetSetting]
    """The settings that the agent applied in part."""
    failed: list[UnmetSetting]
    """The settings that the agent could not apply."""


class Usage(Model, kw_only=True):
    month: str
    """The current month in UTC."""
    limits: Limits
    """The quotas, which only installation operators can set."""
    used: Used
    """The current usage. Deleted projects and environments do not count, except in `captures_per_day`."""
    by_month: list[MonthOfUsage]
    """The usage in the current month and in up to 12 earlier months, newest first. Earlier months in which nothing
    was counted are omitted. Counting started with the release that added this operation."""


class WaveFailure(Model, kw_only=True):
    """One cause of failures in the earlier waves."""

    reason: str
    """`reported`: the agents reported the failure. `timeout`: they did not finish in time. `other`: the sum of the
    rarer causes."""
    detail: str
    """The detail of the failures, with numbers, ids and hashes masked. Empty for `other`, and if the agents
    reported no detail."""
    count: int
    """The number of agents."""


class WaveReport(Model, kw_only=True):
    """What the counted agents of the earlier waves did."""

    digest: str
    """The digest of the whole report, which includes the deployment, the bundle and the wave. A decision on the
    wave must contain this digest."""
    summary: str
    """The report in words."""
    progress: dict[str, int]
    """The number of agents by progress."""
    failures: list[WaveFailure]
    """Why agents failed, with the most frequent cause first and `other` last. Failures of agents that have been
    retried since are included."""


class WebhookDelivery(Model, kw_only=True):
    id: str
    """The id of the webhook delivery, a UUIDv7. Ids sort by creation time."""
    event_id: str
    """The id of the event, sent as `webhook-id`."""
    type: str
    """The type of the event."""
    status: str
    """Whether the delivery is pending, was delivered, or failed permanently."""
    attempts: list[Attempt]
    """The latest attempts, oldest first. At most 50 are kept."""
    next_attempt_at: datetime | None
    """When the next attempt is due if the webhook is enabled. Null after the delivery has succeeded or failed
    permanently."""
    finished_at: datetime | None
    """When the event was delivered, or when the delivery failed permanently. Null while the delivery is pending."""
    created_at: datetime
    """When the webhook delivery was created."""


class Approval(Model, kw_only=True):
    id: str
    """The id of the approval, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the approval belongs to."""
    status: str
    """The status of the approval."""
    deployment_id: str | None
    """The id of the deployment that the approval is for. Null if it is for a replay."""
    replay_id: str | None
    """The id of the replay that the approval is for. Null if it is for a deployment."""
    wave: int | None
    """The wave that the approval is for, counted from 0. Null if it is not for a wave."""
    wave_report: WaveReport | None
    """What the earlier waves did. A decision on the wave covers exactly this report. Null if the approval is not
    for a wave."""
    break_glass: bool
    """Whether the approval is for a break-glass deployment, which can start before anybody approves."""
    spec_hash: str
    """The spec hash that the approval covers."""
    config_hash: str | None
    """The config hash that the approval covers. Null for a replay if the request named no config bundle and the
    artifact has no deployment."""
    target: dict[str, Any] | None
    """The target that the approval covers. For a deployment: the requested target, and the number (`count`) and
    first ids (`resolved`) of the agents that matched it when the deployment was requested. For a wave, `resolved`
    is empty. For a replay: the artifact, the version and the other values that decide what runs. Null for some
    replays that were requested in an older release of the control plane."""
    strategy: dict[str, Any] | None
    """The strategy that the approval covers. Null for a replay."""
    take_over: bool
    """Whether the approval covers taking over agents that run another pipeline."""
    agent_timeout_s: int | None
    """The agent timeout that the approval covers, in seconds. The deployment copied it from the environment. Null
    for a replay."""
    override_freeze: str | None
    """The reason to override freeze windows. Null if the approval does not cover an override."""
    override_replay_gate: str | None
    """The reason to override the replay gate. Null if the approval does not cover an override."""
    start_at: datetime | None
    """The time before which the deployment does not start. Null if it starts as soon as possible."""
    reviewers: list[str]
    """The ids of the users who may decide. If empty, everybody with the permission `environment:operate` may
    decide."""
    explain: list[DifferenceExplanation]
    """The requester's explanations of differences."""
    capabilities: list[str]
    """The capabilities that the approval permits."""
    warnings: list[ConfigWarning] | None
    """Warnings about the config bundle: one for each stage that has no parameters although its op needs some (at
    most 100). Null in a list. Empty for a replay or a wave."""
    required_approvals: int
    """The number of people who must approve."""
    allow_self_approval: bool
    """Whether the requester may approve."""
    requested_by: str
    """Who requested the approval: an e-mail address, or `key` and the name of an organization API key."""
    decisions: list[Decision]
    """The decisions, one for each person who has decided."""
    expires_at: datetime
    """When the pending request expires. The request does not expire while its deployment waits for an unfinished
    regression or, for a wave, while its deployment is paused. If the approval credential was issued: when the
    credential expires."""
    approved_at: datetime | None
    """When the request was approved. Null if it was not approved."""
    used_at: datetime | None
    """When the approval was used. For a break-glass deployment, this is when the deployment was approved. Null if
    the approval was not used."""
    credential: str | None
    """The approval credential. Null if the request was not approved, if the approval is for a wave, and for callers
    without the permission `environment:operate`."""
    created_at: datetime
    """When the approval was created."""


class Bisect(Model, kw_only=True):
    id: str
    """The id of the bisect, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the bisect belongs to."""
    status: str
    """The status of the bisect."""
    artifact_id: str
    """The id of the artifact that is replayed."""
    predicate: str | Predicate
    """The condition under which a version is bad."""
    exhaustive: bool
    """Whether all `versions` are replayed."""
    outcome: str | None
    """The outcome of the search. `found`: the first bad version is known. `no_change`: the oldest and newest tested
    versions have the same verdict, and no first bad version was found. `inverted`: the oldest tested version is bad
    and the newest is good. `inconclusive`: too few versions could be tested to find the first bad version. Null
    until the bisect has succeeded."""
    versions: list[BisectedVersion]
    """The versions from oldest to newest, with the verdicts so far."""
    first_bad: str | None
    """The id of the first version that is known to be bad after a good version. Null until the bisect has
    succeeded. Also null if the outcome is `no_change` or `inverted`, or if an `inconclusive` search found no such
    version."""
    last_good: str | None
    """The id of the last version before `first_bad` that is known to be good. Null if `first_bad` is null."""
    diff: Diff | None
    """The changes from the last good to the first bad version. Null unless both are known."""
    monotone: bool | None
    """Whether no good version follows a bad version. Null unless the bisect is exhaustive, has succeeded and could
    test at least two versions."""
    error: str | None
    """Why the bisect has no outcome. Null unless it failed or was canceled."""
    requested_by: str
    """Who requested the bisect: an e-mail address, or `key` and the name of an organization API key."""
    finished_at: datetime | None
    """When the bisect finished. Null until then."""
    created_at: datetime
    """When the bisect was created."""


class DefaultEnvironmentSettings(Model, kw_only=True):
    """The settings of new environments. Those that are absent have the defaults of the environment's posture."""

    approvals_required: bool | UnsetType = UNSET
    """Whether a deployment needs approval. Defaults to true for `prod`, otherwise to false."""
    required_approvals: int | UnsetType = UNSET
    """The number of different people who must approve. Defaults to 1."""
    allow_self_approval: bool | UnsetType = UNSET
    """Whether the requester may approve, except after break-glass. Defaults to true for `dev`, otherwise to false."""
    approval_ttl_s: int | UnsetType = UNSET
    """The number of seconds until a pending approval expires, and the maximum number of seconds for which a granted
    approval is valid. If the start time of a deployment has not been reached, both periods begin at the start time.
    A pending approval gets more time if its deployment waits for a regression, or if the approval is for a wave and
    the deployment is paused. A request for a break-glass deployment can set a shorter time. Defaults to 3600."""
    replay_policy: str | UnsetType = UNSET
    """Which replays are permitted. Defaults to `allowed` for `dev`, otherwise to `dry_run_only`."""
    heartbeat_interval_s: int | UnsetType = UNSET
    """The usual number of seconds between an agent's heartbeats. Defaults to 30."""
    agent_timeout_s: int | UnsetType = UNSET
    """The number of seconds that an agent has to finish a deployment after it was offered. After that time, the
    agent counts as failed. Agents for which the rollout does not wait, for example because they were offline when
    it started, have no time limit. Defaults to 600."""
    max_in_flight_deployments: int | UnsetType = UNSET
    """The maximum number of deployments in the environment that are in progress at the same time. Defaults to 1."""
    artifact_retention_days: int | UnsetType = UNSET
    """The number of days after which an artifact is deleted, unless it has a fixture that has not expired. Defaults
    to 90."""
    replay_gate: str | UnsetType = UNSET
    """Whether a regression tests each deployment, and whether its result can block the deployment. `off`: no
    regression is requested. `warn`: the result is shown, and blocks nothing. `require`: while the gate blocks the
    deployment, for example because a difference is not accepted, the deployment can neither be approved nor start,
    unless its request overrides the gate. Defaults to `off`."""
    replay_gate_min_fixtures: int | UnsetType = UNSET
    """The number of verdicts that the regression needs if `replay_gate` is `require`. Verdicts that are
    `not_tested` do not count. Defaults to 0."""
    max_work_increase_percent: int | UnsetType | None = UNSET
    """How much more work, in percent, the configuration of a deployment may need than the configurations with which
    the regression compares it. Used only if `replay_gate` is `require`. Null means no limit. Defaults to null."""
    reviewers: list[str] | UnsetType = UNSET
    """The ids of the users who may decide on approvals, whatever their role. Each must be a member. If empty,
    everybody with the permission `environment:operate` may decide. Defaults to none."""
    freeze_windows: list[FreezeWindow] | UnsetType = UNSET
    """The periods in which no deployment starts, unless its request overrides freeze windows. Defaults to none."""


class DefaultEnvironmentSettingsRequest(Model, kw_only=True):
    """The settings of new environments. Those that are absent have the defaults of the environment's posture."""

    approvals_required: bool | UnsetType = UNSET
    """Whether a deployment needs approval. Defaults to true for `prod`, otherwise to false."""
    required_approvals: int | UnsetType = UNSET
    """The number of different people who must approve. Defaults to 1."""
    allow_self_approval: bool | UnsetType = UNSET
    """Whether the requester may approve, except after break-glass. Defaults to true for `dev`, otherwise to false."""
    approval_ttl_s: int | UnsetType = UNSET
    """The number of seconds until a pending approval expires, and the maximum number of seconds for which a granted
    approval is valid. If the start time of a deployment has not been reached, both periods begin at the start time.
    A pending approval gets more time if its deployment waits for a regression, or if the approval is for a wave and
    the deployment is paused. A request for a break-glass deployment can set a shorter time. Defaults to 3600."""
    replay_policy: str | UnsetType = UNSET
    """Which replays are permitted. Defaults to `allowed` for `dev`, otherwise to `dry_run_only`."""
    heartbeat_interval_s: int | UnsetType = UNSET
    """The usual number of seconds between an agent's heartbeats. Defaults to 30."""
    agent_timeout_s: int | UnsetType = UNSET
    """The number of seconds that an agent has to finish a deployment after it was offered. After that time, the
    agent counts as failed. Agents for which the rollout does not wait, for example because they were offline when
    it started, have no time limit. Defaults to 600."""
    max_in_flight_deployments: int | UnsetType = UNSET
    """The maximum number of deployments in the environment that are in progress at the same time. Defaults to 1."""
    artifact_retention_days: int | UnsetType = UNSET
    """The number of days after which an artifact is deleted, unless it has a fixture that has not expired. Defaults
    to 90."""
    replay_gate: str | UnsetType = UNSET
    """Whether a regression tests each deployment, and whether its result can block the deployment. `off`: no
    regression is requested. `warn`: the result is shown, and blocks nothing. `require`: while the gate blocks the
    deployment, for example because a difference is not accepted, the deployment can neither be approved nor start,
    unless its request overrides the gate. Defaults to `off`."""
    replay_gate_min_fixtures: int | UnsetType = UNSET
    """The number of verdicts that the regression needs if `replay_gate` is `require`. Verdicts that are
    `not_tested` do not count. Defaults to 0."""
    max_work_increase_percent: int | UnsetType | None = UNSET
    """How much more work, in percent, the configuration of a deployment may need than the configurations with which
    the regression compares it. Used only if `replay_gate` is `require`. Null means no limit. Defaults to null."""
    reviewers: list[str] | UnsetType = UNSET
    """The ids of the users who may decide on approvals, whatever their role. Each must be a member. If empty,
    everybody with the permission `environment:operate` may decide. Defaults to none."""
    freeze_windows: list[FreezeWindowRequest] | UnsetType = UNSET
    """The periods in which no deployment starts, unless its request overrides freeze windows. Defaults to none."""


class Deployment(Model, kw_only=True):
    id: str
    """The id of the deployment, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the deployment belongs to."""
    status: str
    """The deployment's status."""
    config_bundle_id: str
    """The id of the config bundle to deploy."""
    version_id: str
    """The id of the version in the config bundle."""
    pipeline: str
    """The name of the pipeline."""
    spec_hash: str
    """The SHA-256 of the canonical spec: `sha256:` and 64 lowercase hexadecimal digits."""
    config_hash: str
    """The SHA-256 that identifies the content of the config bundle."""
    bundle_hash: str | None
    """The SHA-256 of the deploy bundle. Null if the bundle has not been built."""
    bundle_size: int | None
    """The size of the deploy bundle in bytes. Null if the bundle has not been built."""
    target: Target
    """The agents that the deployment is for. Send exactly one of `agents`, `selector` and `all`."""
    target_count: int
    """The number of agents that matched the target when the deployment was created."""
    strategy: Strategy
    """How the deployment spreads over the agents. Defaults to `all_at_once`."""
    take_over: bool
    """Whether the deployment may take over agents that run another pipeline. Defaults to false."""
    freeze_override: str
    """The reason to start the deployment during a freeze window. Empty if the deployment does not override freeze
    windows."""
    replay_gate_override: str
    """The reason to override the replay gate. Empty if the deployment does not override it."""
    explain: list[DifferenceExplanation]
    """The requester's explanations of differences, which approvers see next to the differences. At most 100."""
    regression_id: str | None
    """The id of the regression that the replay gate evaluates. Null if the gate was off at the request, or if the
    regression was deleted."""
    break_glass: BreakGlass | None
    """Starts the deployment in an emergency before anybody has approved it. Only a person with the role `org_admin`
    may do this. If the deployment is not approved in time, it is rolled back if possible. Null for a deployment
    without break-glass."""
    start_at: datetime | None
    """The time before which the deployment does not start, at most 30 days ahead. Until then, it is not in flight,
    and no other deployment waits for it. The time must not be in a freeze window, unless the deployment overrides
    freeze windows. The time limit for approving the deployment, the environment's `approval_ttl_s`, is counted from
    this time. Null if the deployment starts as soon as possible."""
    reviewers: list[str]
    """The ids of the users who may decide on the approvals of the deployment, whatever their role. Defaults to the
    environment's setting `reviewers`. If the setting is not empty, only people in the setting can be named. If the
    setting is empty in `staging` or `prod`, only an `org_admin` can name people without the permission
    `environment:operate`. If the deployment needs no approval, the list is always empty. If the deployment needs
    approval and the list is empty, everybody with the permission `environment:operate` may decide."""
    wave: int
    """The wave that the deployment has reached, counted from 0."""
    wave_hold: WaveHold | None
    """The hold before the next wave. Null if no hold is in effect."""
    progress: Progress
    """The number of the deployment's enlisted agents, in total and by progress. All are 0 before the bundle is
    built."""
    failures: list[Cause] | None
    """Why agents failed, with the most frequent cause first and `other` last. Null in lists."""
    is_current: bool
    """Whether this is the deployment that the environment currently runs for the pipeline."""
    superseded_by: str | None
    """The id of the deployment that replaced this one. Null if no other has replaced it, if a rollback has restored
    it, or if the replacement was deleted."""
    restores: str | None
    """The id of the deployment that the rollback of this deployment restores. Null if no rollback was started, or
    if that deployment was deleted."""
    rollback_reason: str
    """Why a rollback of the deployment was started. Empty if none was."""
    paused_at: datetime | None
    """When the deployment was paused. Null if it is not paused."""
    approval_id: str | None
    """The id of the deployment's approval, whatever the status of the approval. If the request contained a
    credential, this is the approval of that credential. Null if the deployment has no approval."""
    approved_at: datetime | None
    """When the deployment was approved. If its request contained `approval`, this is when the deployment was
    created. Null if the deployment was not approved, or if it started by break-glass."""
    activated_at: datetime | None
    """When the deployment became active. Null if it has never been active."""
    requested_by: str
    """Who requested the deployment: an e-mail address, or `key` and the name of an organization API key."""
    reason: str
    """A code for why the deployment failed. Empty if it has not failed, or was retried since."""
    detail: str
    """More about why the deployment failed. May be empty."""
    blockers: list[Blocker] | None
    """Why the deployment cannot continue now. When the list is empty, an approved deployment starts, or fails if it
    is no longer permitted to start. While the deployment is pending approval, the list contains only
    `too_few_reviewers` and the blockers of the replay gate. Nobody can approve the deployment while the replay gate
    blocks it. After break-glass, the list contains `too_few_reviewers` if too few reviewers remain for the pending
    approval. The deployment continues despite this blocker, which is the only one that a finished deployment can
    have. Null in lists."""
    note: str
    """The requester's note."""
    created_at: datetime
    """When the deployment was created."""


class DeploymentAgent(Model, kw_only=True):
    """A row of a list. Large values are null."""

    agent_id: str
    """The id of the agent."""
    agent_name: str
    """The agent's name."""
    wave: int
    """The agent's wave, counted from 0. For a late joiner, the wave that the deployment had reached."""
    counted: bool
    """Whether the agent counts for waves and thresholds."""
    action: str
    """The action of the agent's offer: `activate` (also before the first offer) or `rollback`."""
    progress: str
    """The agent's progress in the deployment."""
    offered_at: datetime | None
    """When the deployment last made or renewed the agent's offer. If the rollback of another deployment added the
    agent: when that rollback made its offer. Null before the first offer, and if the offer was withdrawn."""
    tuning: Tuning | None
    """How much of the tuning profile the agent could apply. Without a report, only `requested` has content. In a
    list, this field is null if it is larger than 4 KiB."""
    detail: str
    """More about the agent's progress, such as the reason for a failure. Empty after a new offer."""
    failure: Failure | None
    """The agent's latest failure to activate the bundle or, if there is none, to roll back. It is kept when the
    agent is retried or rolled back. Null if the agent has never failed in this deployment."""
    updated_at: datetime
    """When the agent's part in the deployment was last changed."""


class Enrolled(Model, kw_only=True):
    """The response to an enrollment. It is the only response that contains the agent key."""

    agent_id: str
    """The agent's id, used in the paths below `/api/v1/agents/{id}`."""
    api_key: str
    """The agent key. It is shown only in this response."""
    name: str
    """The agent's name."""
    environment_id: str
    """The id of the environment in which the agent was enrolled."""
    heartbeat_interval_s: int
    """The usual number of seconds between two heartbeats."""
    signing_keys: KeySet
    """The public keys with which the agent verifies deploy bundles."""


class EnvironmentSettings(Model, kw_only=True):
    """An environment's settings. Some defaults depend on its posture, unless the organization has other defaults."""

    approvals_required: bool
    """Whether a deployment needs approval. Defaults to true for `prod`, otherwise to false."""
    required_approvals: int
    """The number of different people who must approve. Defaults to 1."""
    allow_self_approval: bool
    """Whether the requester may approve, except after break-glass. Defaults to true for `dev`, otherwise to false."""
    approval_ttl_s: int
    """The number of seconds until a pending approval expires, and the maximum number of seconds for which a granted
    approval is valid. If the start time of a deployment has not been reached, both periods begin at the start time.
    A pending approval gets more time if its deployment waits for a regression, or if the approval is for a wave and
    the deployment is paused. A request for a break-glass deployment can set a shorter time. Defaults to 3600."""
    replay_policy: str
    """Which replays are permitted. Defaults to `allowed` for `dev`, otherwise to `dry_run_only`."""
    heartbeat_interval_s: int
    """The usual number of seconds between an agent's heartbeats. Defaults to 30."""
    agent_timeout_s: int
    """The number of seconds that an agent has to finish a deployment after it was offered. After that time, the
    agent counts as failed. Agents for which the rollout does not wait, for example because they were offline when
    it started, have no time limit. Defaults to 600."""
    max_in_flight_deployments: int
    """The maximum number of deployments in the environment that are in progress at the same time. Defaults to 1."""
    artifact_retention_days: int
    """The number of days after which an artifact is deleted, unless it has a fixture that has not expired. Defaults
    to 90."""
    replay_gate: str
    """Whether a regression tests each deployment, and whether its result can block the deployment. `off`: no
    regression is requested. `warn`: the result is shown, and blocks nothing. `require`: while the gate blocks the
    deployment, for example because a difference is not accepted, the deployment can neither be approved nor start,
    unless its request overrides the gate. Defaults to `off`."""
    replay_gate_min_fixtures: int
    """The number of verdicts that the regression needs if `replay_gate` is `require`. Verdicts that are
    `not_tested` do not count. Defaults to 0."""
    max_work_increase_percent: int | None
    """How much more work, in percent, the configuration of a deployment may need than the configurations with which
    the regression compares it. Used only if `replay_gate` is `require`. Null means no limit. Defaults to null."""
    reviewers: list[str]
    """The ids of the users who may decide on approvals, whatever their role. Each must be a member. If empty,
    everybody with the permission `environment:operate` may decide. Defaults to none."""
    freeze_windows: list[FreezeWindow]
    """The periods in which no deployment starts, unless its request overrides freeze windows. Defaults to none."""


class EnvironmentSettingsRequest(Model, kw_only=True):
    """An environment's settings. Some defaults depend on its posture, unless the organization has other defaults."""

    approvals_required: bool | UnsetType = UNSET
    """Whether a deployment needs approval. Defaults to true for `prod`, otherwise to false."""
    required_approvals: int | UnsetType = UNSET
    """The number of different people who must approve. Defaults to 1."""
    allow_self_approval: bool | UnsetType = UNSET
    """Whether the requester may approve, except after break-glass. Defaults to true for `dev`, otherwise to false."""
    approval_ttl_s: int | UnsetType = UNSET
    """The number of seconds until a pending approval expires, and the maximum number of seconds for which a granted
    approval is valid. If the start time of a deployment has not been reached, both periods begin at the start time.
    A pending approval gets more time if its deployment waits for a regression, or if the approval is for a wave and
    the deployment is paused. A request for a break-glass deployment can set a shorter time. Defaults to 3600."""
    replay_policy: str | UnsetType = UNSET
    """Which replays are permitted. Defaults to `allowed` for `dev`, otherwise to `dry_run_only`."""
    heartbeat_interval_s: int | UnsetType = UNSET
    """The usual number of seconds between an agent's heartbeats. Defaults to 30."""
    agent_timeout_s: int | UnsetType = UNSET
    """The number of seconds that an agent has to finish a deployment after it was offered. After that time, the
    agent counts as failed. Agents for which the rollout does not wait, for example because they were offline when
    it started, have no time limit. Defaults to 600."""
    max_in_flight_deployments: int | UnsetType = UNSET
    """The maximum number of deployments in the environment that are in progress at the same time. Defaults to 1."""
    artifact_retention_days: int | UnsetType = UNSET
    """The number of days after which an artifact is deleted, unless it has a fixture that has not expired. Defaults
    to 90."""
    replay_gate: str | UnsetType = UNSET
    """Whether a regression tests each deployment, and whether its result can block the deployment. `off`: no
    regression is requested. `warn`: the result is shown, and blocks nothing. `require`: while the gate blocks the
    deployment, for example because a difference is not accepted, the deployment can neither be approved nor start,
    unless its request overrides the gate. Defaults to `off`."""
    replay_gate_min_fixtures: int | UnsetType = UNSET
    """The number of verdicts that the regression needs if `replay_gate` is `require`. Verdicts that are
    `not_tested` do not count. Defaults to 0."""
    max_work_increase_percent: int | UnsetType | None = UNSET
    """How much more work, in percent, the configuration of a deployment may need than the configurations with which
    the regression compares it. Used only if `replay_gate` is `require`. Null means no limit. Defaults to null."""
    reviewers: list[str] | UnsetType = UNSET
    """The ids of the users who may decide on approvals, whatever their role. Each must be a member. If empty,
    everybody with the permission `environment:operate` may decide. Defaults to none."""
    freeze_windows: list[FreezeWindowRequest] | UnsetType = UNSET
    """The periods in which no deployment starts, unless its request overrides freeze windows. Defaults to none."""


class Explanation(Model, kw_only=True):
    """Why an agent runs what it runs, and what happens next. The codes are for programs, the sentences for people."""

    agent_id: str
    """The id of the agent."""
    summary: str
    """A short summary of the explanation."""
    running: RunningState | None
    """The bundle that the agent runs, according to its last heartbeat. Null if it runs none, or before the first
    heartbeat."""
    desired: DesiredState | None
    """The bundle that the agent should run. Null if the agent has no offer."""
    because: list[Finding]
    """The reasons, with the main reason first."""
    next: list[NextEvent]
    """The expected events, with the soonest first and those without a known time last."""


class ListedApproval(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the approval, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the approval belongs to."""
    status: str
    """The status of the approval."""
    deployment_id: str | None
    """The id of the deployment that the approval is for. Null if it is for a replay."""
    replay_id: str | None
    """The id of the replay that the approval is for. Null if it is for a deployment."""
    wave: int | None
    """The wave that the approval is for, counted from 0. Null if it is not for a wave."""
    wave_report: WaveReport | None
    """What the earlier waves did. A decision on the wave covers exactly this report. Null if the approval is not
    for a wave. In a list, this field is null if it is larger than 4 KiB; `getApproval` returns it."""
    break_glass: bool
    """Whether the approval is for a break-glass deployment, which can start before anybody approves."""
    spec_hash: str
    """The spec hash that the approval covers."""
    config_hash: str | None
    """The config hash that the approval covers. Null for a replay if the request named no config bundle and the
    artifact has no deployment."""
    target: dict[str, Any] | None
    """The target that the approval covers. For a deployment: the requested target, and the number (`count`) and
    first ids (`resolved`) of the agents that matched it when the deployment was requested. For a wave, `resolved`
    is empty. For a replay: the artifact, the version and the other values that decide what runs. Null for some
    replays that were requested in an older release of the control plane. In a list, this field is null if it is
    larger than 4 KiB; `getApproval` returns it."""
    strategy: dict[str, Any] | None
    """The strategy that the approval covers. Null for a replay."""
    take_over: bool
    """Whether the approval covers taking over agents that run another pipeline."""
    agent_timeout_s: int | None
    """The agent timeout that the approval covers, in seconds. The deployment copied it from the environment. Null
    for a replay."""
    override_freeze: str | None
    """The reason to override freeze windows. Null if the approval does not cover an override."""
    override_replay_gate: str | None
    """The reason to override the replay gate. Null if the approval does not cover an override."""
    start_at: datetime | None
    """The time before which the deployment does not start. Null if it starts as soon as possible."""
    reviewers: list[str]
    """The ids of the users who may decide. If empty, everybody with the permission `environment:operate` may
    decide."""
    explain: list[DifferenceExplanation] | None
    """The requester's explanations of differences. In a list, this field is null if it is larger than 4 KiB;
    `getApproval` returns it."""
    capabilities: list[str] | None
    """The capabilities that the approval permits. In a list, this field is null if it is larger than 4 KiB;
    `getApproval` returns it."""
    warnings: list[ConfigWarning] | None
    """Warnings about the config bundle: one for each stage that has no parameters although its op needs some (at
    most 100). Null in a list. Empty for a replay or a wave."""
    required_approvals: int
    """The number of people who must approve."""
    allow_self_approval: bool
    """Whether the requester may approve."""
    requested_by: str
    """Who requested the approval: an e-mail address, or `key` and the name of an organization API key."""
    decisions: list[Decision]
    """The decisions, one for each person who has decided."""
    expires_at: datetime
    """When the pending request expires. The request does not expire while its deployment waits for an unfinished
    regression or, for a wave, while its deployment is paused. If the approval credential was issued: when the
    credential expires."""
    approved_at: datetime | None
    """When the request was approved. Null if it was not approved."""
    used_at: datetime | None
    """When the approval was used. For a break-glass deployment, this is when the deployment was approved. Null if
    the approval was not used."""
    credential: str | None
    """The approval credential. Null if the request was not approved, if the approval is for a wave, and for callers
    without the permission `environment:operate`. In a list, this field is null if it is larger than 4 KiB;
    `getApproval` returns it."""
    created_at: datetime
    """When the approval was created."""


class ListedDeployment(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the deployment, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the deployment belongs to."""
    status: str
    """The deployment's status."""
    config_bundle_id: str
    """The id of the config bundle to deploy."""
    version_id: str
    """The id of the version in the config bundle."""
    pipeline: str
    """The name of the pipeline."""
    spec_hash: str
    """The SHA-256 of the canonical spec: `sha256:` and 64 lowercase hexadecimal digits."""
    config_hash: str
    """The SHA-256 that identifies the content of the config bundle."""
    bundle_hash: str | None
    """The SHA-256 of the deploy bundle. Null if the bundle has not been built."""
    bundle_size: int | None
    """The size of the deploy bundle in bytes. Null if the bundle has not been built."""
    target: Target | None
    """The agents that the deployment is for. Send exactly one of `agents`, `selector` and `all`. In a list, this
    field is null if it is larger than 4 KiB; `getDeployment` returns it."""
    target_count: int
    """The number of agents that matched the target when the deployment was created."""
    strategy: Strategy
    """How the deployment spreads over the agents. Defaults to `all_at_once`."""
    take_over: bool
    """Whether the deployment may take over agents that run another pipeline. Defaults to false."""
    freeze_override: str
    """The reason to start the deployment during a freeze window. Empty if the deployment does not override freeze
    windows."""
    replay_gate_override: str
    """The reason to override the replay gate. Empty if the deployment does not override it."""
    explain: list[DifferenceExplanation] | None
    """The requester's explanations of differences, which approvers see next to the differences. At most 100. In a
    list, this field is null if it is larger than 4 KiB; `getDeployment` returns it."""
    regression_id: str | None
    """The id of the regression that the replay gate evaluates. Null if the gate was off at the request, or if the
    regression was deleted."""
    break_glass: BreakGlass | None
    """Starts the deployment in an emergency before anybody has approved it. Only a person with the role `org_admin`
    may do this. If the deployment is not approved in time, it is rolled back if possible. Null for a deployment
    without break-glass."""
    start_at: datetime | None
    """The time before which the deployment does not start, at most 30 days ahead. Until then, it is not in flight,
    and no other deployment waits for it. The time must not be in a freeze window, unless the deployment overrides
    freeze windows. The time limit for approving the deployment, the environment's `approval_ttl_s`, is counted from
    this time. Null if the deployment starts as soon as possible."""
    reviewers: list[str]
    """The ids of the users who may decide on the approvals of the deployment, whatever their role. Defaults to the
    environment's setting `reviewers`. If the setting is not empty, only people in the setting can be named. If the
    setting is empty in `staging` or `prod`, only an `org_admin` can name people without the permission
    `environment:operate`. If the deployment needs no approval, the list is always empty. If the deployment needs
    approval and the list is empty, everybody with the permission `environment:operate` may decide."""
    wave: int
    """The wave that the deployment has reached, counted from 0."""
    wave_hold: WaveHold | None
    """The hold before the next wave. Null if no hold is in effect."""
    progress: Progress
    """The number of the deployment's enlisted agents, in total and by progress. All are 0 before the bundle is
    built."""
    failures: list[Cause] | None
    """Why agents failed, with the most frequent cause first and `other` last. Null in lists."""
    is_current: bool
    """Whether this is the deployment that the environment currently runs for the pipeline."""
    superseded_by: str | None
    """The id of the deployment that replaced this one. Null if no other has replaced it, if a rollback has restored
    it, or if the replacement was deleted."""
    restores: str | None
    """The id of the deployment that the rollback of this deployment restores. Null if no rollback was started, or
    if that deployment was deleted."""
    rollback_reason: str
    """Why a rollback of the deployment was started. Empty if none was."""
    paused_at: datetime | None
    """When the deployment was paused. Null if it is not paused."""
    approval_id: str | None
    """The id of the deployment's approval, whatever the status of the approval. If the request contained a
    credential, this is the approval of that credential. Null if the deployment has no approval."""
    approved_at: datetime | None
    """When the deployment was approved. If its request contained `approval`, this is when the deployment was
    created. Null if the deployment was not approved, or if it started by break-glass."""
    activated_at: datetime | None
    """When the deployment became active. Null if it has never been active."""
    requested_by: str
    """Who requested the deployment: an e-mail address, or `key` and the name of an organization API key."""
    reason: str
    """A code for why the deployment failed. Empty if it has not failed, or was retried since."""
    detail: str
    """More about why the deployment failed. May be empty."""
    blockers: list[Blocker] | None
    """Why the deployment cannot continue now. When the list is empty, an approved deployment starts, or fails if it
    is no longer permitted to start. While the deployment is pending approval, the list contains only
    `too_few_reviewers` and the blockers of the replay gate. Nobody can approve the deployment while the replay gate
    blocks it. After break-glass, the list contains `too_few_reviewers` if too few reviewers remain for the pending
    approval. The deployment continues despite this blocker, which is the only one that a finished deployment can
    have. Null in lists."""
    note: str
    """The requester's note."""
    created_at: datetime
    """When the deployment was created."""


class ListedEnvironment(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the environment, a UUIDv7. Ids sort by creation time."""
    project_id: str
    """The id of the project that the environment belongs to."""
    name: str
    """The environment's name, unique in the project."""
    posture: str
    """How strict the environment's default settings are. The posture cannot be changed after creation."""
    settings: EnvironmentSettings | None
    """The environment's settings. An update changes only the keys that it contains. In a list, this field is null
    if it is larger than 4 KiB; `getEnvironment` returns it."""
    position: int
    """The environment's place in the order of the project's environments, counted from 1. By default, a new
    environment is the last one. When an environment is moved, the positions of the environments between its old and
    its new position change by 1. When an environment is inserted or deleted, the positions of the following ones
    increase or decrease by 1. A position that is greater than the number of environments is refused with 400. A new
    environment counts in this number."""
    created_at: datetime
    """When the environment was created."""
    updated_at: datetime
    """When the environment was last changed."""


class ListedRegression(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the regression, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the regression belongs to."""
    status: str
    """The status of the regression. `failed`: a fixture has the outcome `failed` or `unstable`, or the regression
    could not be completed. `differs`: no fixture failed, but at least one shows a difference. `passed`: no fixture
    failed or shows a difference."""
    pipeline: str
    """The name of the pipeline whose fixtures are tested."""
    config_bundle_id: str | None
    """The id of the tested config bundle. Null if a version or a draft is tested."""
    version_id: str | None
    """The id of the tested version. Null if a config bundle or a draft is tested."""
    draft_id: str | None
    """The id of the tested draft. Null if a config bundle or a version is tested, and if the draft was deleted."""
    config_hash: str | None
    """The config hash of the tested config bundle. Null if a version or a draft is tested."""
    of_current: bool
    """Whether the worker requested the regression, to test the configuration that the environment runs now. Only
    golden fixtures are tested. If there are any, the worker requests one such regression after a release (unless an
    earlier one has tested the same config bundle with the same fixtures and engine), after a fixture was added,
    after the `expect` or `expires_at` of a fixture was changed, after a configuration of the pipeline became known
    bad or was cleared, and after the engine has changed."""
    progress: RegressionProgress
    """The progress of the regression."""
    baselines: list[Baseline]
    """The configurations that the candidate is compared with."""
    not_tested: list[Untested] | None
    """Other configurations of the pipeline that agents ran at the time of the request. The candidate is not
    compared with them. Empty if `of_current` is true. In a list, this field is null if it is larger than 4 KiB;
    `getRegression` returns it."""
    fixtures: int
    """The number of tested fixtures: those of the pipeline that had not expired when the regression started. If
    `of_current` is true, only golden fixtures are tested. It is 0 until the start."""
    vacuous: bool
    """Whether the regression was completed but tested nothing: there are no fixtures, there is nothing to compare
    with, or each result is `not_tested`. A vacuous regression has the status `passed`."""
    verdicts: VerdictCount
    """How many verdicts were known, and how many were computed."""
    results: list[RegressionResult] | None
    """The verdict of each fixture and compared configuration. Null in a list; `getRegression` returns them."""
    groups: list[DifferenceGroup] | None
    """The differences of all fixtures, grouped by what differs, the most frequent first. Empty until the regression
    has finished, and if `getRegression` was called with `after`. Null in a list; `getRegression` returns them."""
    more: int
    """The number of further differences that belong to no group. Reasons: the regression already has 1,000 groups,
    the groups of a fixture are too many or too large, or a difference from a golden result cannot be grouped (see
    the result's `error`)."""
    truncated: bool | None
    """Whether examples, results or groups are incomplete because a response is limited to 4 MiB. First the payloads
    of the last examples are left out, then the last results, and then the last groups. Use `group` to get the
    example of a group, and `after` to get further results. Null in a list."""
    next_after: int | None
    """The value of `after` for further results. Null if there are none, and in a list."""
    work: RegressionWork
    """The work of the replays, in the units of a replay's work limit. Fixtures with golden results are not counted.
    The work is the same on every machine. It is 0 until the regression has finished."""
    summary: str | None
    """The result as Markdown that fits into a comment on a pull request. If the regression was canceled or could
    not be completed, it contains the reason. Empty while the regression is queued or running. In a list, this field
    is null if it is larger than 4 KiB; `getRegression` returns it."""
    error: str | None
    """Why the regression was canceled or could not be completed. Otherwise null, even if a fixture failed."""
    requested_by: str
    """Who requested the regression: an e-mail address, or `key` and the name of an organization API key."""
    started_at: datetime | None
    """When the regression started. Null until then."""
    finished_at: datetime | None
    """When the regression finished. Null until then."""
    created_at: datetime
    """When the regression was created."""


class MatrixCell(Model, kw_only=True):
    """A pipeline in one environment."""

    environment_id: str
    """The id of the environment that the matrix cell belongs to."""
    deployment_id: str | None
    """The id of the pipeline's current deployment in this environment. Null if there is none."""
    config_bundle_id: str | None
    """The id of the current deployment's config bundle. Null if `deployment_id` is null."""
    version: MatrixVersion | None
    """The version of the current deployment. Null if `deployment_id` is null."""
    config_hash: str | None
    """The config hash of the current deployment. Null if `deployment_id` is null."""
    agents: int
    """The number of agents that run the bundle of the current deployment. 0 if `deployment_id` is null."""
    of: int
    """The number of agents that are enlisted in the current deployment, including late joiners and recently
    decommissioned agents. 0 if `deployment_id` is null."""
    under_way: MatrixDeployment | None
    """The unfinished deployment of the pipeline in this environment. If there are several, the one whose status
    comes first in the order `rolling_back`, `deploying`, `building`, `approved`, `pending_approval`. If several
    have this status, the oldest of them. Null if there is none."""
    differs_from_previous: bool | None
    """Whether the config hash differs from the one in the previous environment. Because a config hash covers the
    spec hash, equal config hashes mean equal specs and configurations. Null for the first environment, and if the
    pipeline has no current deployment in this environment or in the previous one."""


class MatrixRow(Model, kw_only=True):
    """A pipeline in each environment."""

    name: str
    """The name of the pipeline."""
    environments: list[MatrixCell]
    """The pipeline in each environment of the project, in the order of the environments' positions."""


class Me(Model, kw_only=True):
    """The caller: the person (if any), the credential, and the credential's roles."""

    user: User | None
    """The person to whom the credential belongs. Null for an organization API key."""
    credential: Credential
    """The credential of this request."""
    roles: list[Role]
    """The roles of the credential. A user token has all roles of the person."""


class OrganizationSettings(Model, kw_only=True):
    """An organization's settings."""

    token_max_days: int
    """The maximum lifetime of user tokens and organization API keys in days. Defaults to 90."""
    email_domains: list[str]
    """The permitted domains of new members' e-mail addresses. If empty, every domain is permitted."""
    default_environment_settings: DefaultEnvironmentSettings
    """The settings of new environments, unless the request contains others. An update replaces them as a whole."""
    default_notification_settings: DefaultNotificationSettings
    """For each type of event, when members who have not chosen this themselves get e-mails: `off`, `now` or
    `daily`. An update replaces all of these settings."""


class OrganizationSettingsRequest(Model, kw_only=True):
    """An organization's settings."""

    token_max_days: int | UnsetType = UNSET
    """The maximum lifetime of user tokens and organization API keys in days. Defaults to 90."""
    email_domains: list[str] | UnsetType = UNSET
    """The permitted domains of new members' e-mail addresses. If empty, every domain is permitted."""
    default_environment_settings: DefaultEnvironmentSettingsRequest | UnsetType = UNSET
    """The settings of new environments, unless the request contains others. An update replaces them as a whole."""
    default_notification_settings: DefaultNotificationSettings | UnsetType = UNSET
    """For each type of event, when members who have not chosen this themselves get e-mails: `off`, `now` or
    `daily`. An update replaces all of these settings."""


class Packet(Model, kw_only=True):
    """The packet of an approval: what a reviewer should know before the decision."""

    approval_id: str
    """The id of the approval."""
    deployment_id: str
    """The id of the deployment that the approval is for."""
    headline: str
    """The result of the regression as text. It begins with `Nothing was tested` if nothing was tested."""
    pipeline: PipelineChanges
    """What changes in the pipeline."""
    configuration: list[ConfigChange]
    """What changes in the configuration. If `from_version` is null, every value is added."""
    regression: PacketRegression | None
    """The regression that the replay gate evaluates. Null if the gate was off when the deployment was requested, or
    if the regression was deleted."""
    groups: list[PacketGroup]
    """What changes in the output: the groups of differences, the most frequent first. Empty until the regression
    has finished."""
    more: int
    """The number of further differences that belong to no group and cannot be accepted."""
    captures: list[Capture]
    """The fixtures that show differences."""
    agents: list[RunningConfiguration]
    """The configurations of the pipeline that the target's agents run now, those with most agents first, at most
    100."""
    other_agents: int
    """The number of the target's agents that run no known configuration of the pipeline now."""
    removed_fixtures: list[RemovedFixture]
    """The fixtures of the pipeline that were deleted or have expired since its current deployment was activated,
    the last removed first, at most 100. Empty without a current deployment."""
    rollback: PacketRollback
    """The deployment that a rollback would restore now. A rollback restores the configuration that each agent ran
    before. If that is not possible, the agent gets the configuration of the restored deployment."""
    explanations: list[DifferenceExplanation]
    """The requester's explanations of differences that the regression does not show."""
    gate: PacketGate
    """The replay gate of the deployment."""
    truncated: bool
    """Whether changes, groups, payloads of examples, `captures`, `agents` or `removed_fixtures` are incomplete
    because of the limits of these lists, or because a response is limited to 4 MiB. In a response that would be too
    large, first the payloads of the last examples are left out, and then the last groups. Use `getRegression` with
    its parameter `group` to get the example of a group."""


class PaginatedDeploymentAgentList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[DeploymentAgent]
    """The rows of this page."""


class PaginatedListedApprovalList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[ListedApproval]
    """The rows of this page."""


class PaginatedListedDeploymentList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[ListedDeployment]
    """The rows of this page."""


class PaginatedListedEnvironmentList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[ListedEnvironment]
    """The rows of this page."""


class PaginatedListedRegressionList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[ListedRegression]
    """The rows of this page."""


class PaginatedRequestedCaptureList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[RequestedCapture]
    """The rows of this page."""


class PaginatedSigningKeyList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[SigningKey]
    """The rows of this page."""


class PaginatedWebhookDeliveryList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[WebhookDelivery]
    """The rows of this page."""


class Regression(Model, kw_only=True):
    id: str
    """The id of the regression, a UUIDv7. Ids sort by creation time."""
    environment_id: str
    """The id of the environment that the regression belongs to."""
    status: str
    """The status of the regression. `failed`: a fixture has the outcome `failed` or `unstable`, or the regression
    could not be completed. `differs`: no fixture failed, but at least one shows a difference. `passed`: no fixture
    failed or shows a difference."""
    pipeline: str
    """The name of the pipeline whose fixtures are tested."""
    config_bundle_id: str | None
    """The id of the tested config bundle. Null if a version or a draft is tested."""
    version_id: str | None
    """The id of the tested version. Null if a config bundle or a draft is tested."""
    draft_id: str | None
    """The id of the tested draft. Null if a config bundle or a version is tested, and if the draft was deleted."""
    config_hash: str | None
    """The config hash of the tested config bundle. Null if a version or a draft is tested."""
    of_current: bool
    """Whether the worker requested the regression, to test the configuration that the environment runs now. Only
    golden fixtures are tested. If there are any, the worker requests one such regression after a release (unless an
    earlier one has tested the same config bundle with the same fixtures and engine), after a fixture was added,
    after the `expect` or `expires_at` of a fixture was changed, after a configuration of the pipeline became known
    bad or was cleared, and after the engine has changed."""
    progress: RegressionProgress
    """The progress of the regression."""
    baselines: list[Baseline]
    """The configurations that the candidate is compared with."""
    not_tested: list[Untested]
    """Other configurations of the pipeline that agents ran at the time of the request. The candidate is not
    compared with them. Empty if `of_current` is true."""
    fixtures: int
    """The number of tested fixtures: those of the pipeline that had not expired when the regression started. If
    `of_current` is true, only golden fixtures are tested. It is 0 until the start."""
    vacuous: bool
    """Whether the regression was completed but tested nothing: there are no fixtures, there is nothing to compare
    with, or each result is `not_tested`. A vacuous regression has the status `passed`."""
    verdicts: VerdictCount
    """How many verdicts were known, and how many were computed."""
    results: list[RegressionResult] | None
    """The verdict of each fixture and compared configuration. Null in a list; `getRegression` returns them."""
    groups: list[DifferenceGroup] | None
    """The differences of all fixtures, grouped by what differs, the most frequent first. Empty until the regression
    has finished, and if `getRegression` was called with `after`. Null in a list; `getRegression` returns them."""
    more: int
    """The number of further differences that belong to no group. Reasons: the regression already has 1,000 groups,
    the groups of a fixture are too many or too large, or a difference from a golden result cannot be grouped (see
    the result's `error`)."""
    truncated: bool | None
    """Whether examples, results or groups are incomplete because a response is limited to 4 MiB. First the payloads
    of the last examples are left out, then the last results, and then the last groups. Use `group` to get the
    example of a group, and `after` to get further results. Null in a list."""
    next_after: int | None
    """The value of `after` for further results. Null if there are none, and in a list."""
    work: RegressionWork
    """The work of the replays, in the units of a replay's work limit. Fixtures with golden results are not counted.
    The work is the same on every machine. It is 0 until the regression has finished."""
    summary: str
    """The result as Markdown that fits into a comment on a pull request. If the regression was canceled or could
    not be completed, it contains the reason. Empty while the regression is queued or running."""
    error: str | None
    """Why the regression was canceled or could not be completed. Otherwise null, even if a fixture failed."""
    requested_by: str
    """Who requested the regression: an e-mail address, or `key` and the name of an organization API key."""
    started_at: datetime | None
    """When the regression started. Null until then."""
    finished_at: datetime | None
    """When the regression finished. Null until then."""
    created_at: datetime
    """When the regression was created."""


class TracedRecord(Model, kw_only=True):
    ingress: str
    """The ingress of the record."""
    position: int
    """The position of the record in its journal, in sequence order."""
    steps: list[TracedStep]
    """The steps of the record that are on this page, in order."""
    egress: list[str]
    """The egresses that the record reached. Empty if it reached none, or if a stage error or a limit stopped the
    trace of the record."""


class Environment(Model, kw_only=True):
    id: str
    """The id of the environment, a UUIDv7. Ids sort by creation time."""
    project_id: str
    """The id of the project that the environment belongs to."""
    name: str
    """The environment's name, unique in the project."""
    posture: str
    """How strict the environment's default settings are. The posture cannot be changed after creation."""
    settings: EnvironmentSettings
    """The environment's settings. An update changes only the keys that it contains."""
    position: int
    """The environment's place in the order of the project's environments, counted from 1. By default, a new
    environment is the last one. When an environment is moved, the positions of the environments between its old and
    its new position change by 1. When an environment is inserted or deleted, the positions of the following ones
    increase or decrease by 1. A position that is greater than the number of environments is refused with 400. A new
    environment counts in this number."""
    created_at: datetime
    """When the environment was created."""
    updated_at: datetime
    """When the environment was last changed."""


class ListedOrganization(Model, kw_only=True):
    """A row of a list. Large values are null."""

    id: str
    """The id of the organization, a UUIDv7. Ids sort by creation time."""
    name: str
    """The organization's name, unique in the installation."""
    slug: str
    """A short name, unique in the installation, for example for commands. By default, it is derived from the name
    at creation, or random if the name has no usable characters."""
    settings: OrganizationSettings | None
    """The organization's settings. An update changes only the keys that it contains. In a list, this field is null
    if it is larger than 4 KiB; `getOrganization` returns it."""
    created_at: datetime
    """When the organization was created."""
    updated_at: datetime
    """When the organization was last changed."""


class Matrix(Model, kw_only=True):
    """What runs in each environment, by pipeline."""

    pipelines: list[MatrixRow]
    """The pipelines that have a current or an unfinished deployment in an environment of the project, sorted by
    name."""
    truncated: bool
    """Whether further pipelines or environments are left out. The response contains at most 2,000 cells, but at
    least one pipeline if there is one, and only the first 1,000 environments."""
    next_after: str | None
    """Send this value as `after` to get the next pipelines. Null if there are no further pipelines."""


class Organization(Model, kw_only=True):
    id: str
    """The id of the organization, a UUIDv7. Ids sort by creation time."""
    name: str
    """The organization's name, unique in the installation."""
    slug: str
    """A short name, unique in the installation, for example for commands. By default, it is derived from the name
    at creation, or random if the name has no usable characters."""
    settings: OrganizationSettings
    """The organization's settings. An update changes only the keys that it contains."""
    created_at: datetime
    """When the organization was created."""
    updated_at: datetime
    """When the organization was last changed."""


class PaginatedListedOrganizationList(Model, kw_only=True):
    next: str | None
    """The URL of the next page. Null on the last page."""
    previous: str | None
    """The URL of the previous page. Null on the first page."""
    next_cursor: str | None
    """The value of the `cursor` parameter for the next page. Null on the last page."""
    results: list[ListedOrganization]
    """The rows of this page."""


class Trace(Model, kw_only=True):
    records: list[TracedRecord]
    """The records with the requested `sequence` that have steps on this page. Of each journal, at most 16 such
    records are traced."""
    truncated: bool
    """Whether more steps follow on the next page. A page is limited to 4 MiB."""
    next_after: int | None
    """The value of `after` for the next page: the number of the last step on this page. The steps of all records
    are numbered together, starting at 0. Null if `truncated` is false."""
