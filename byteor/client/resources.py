# Written by tests/clients/write_client.py from docs/openapi.yaml. Do not edit: run `make schema`.
"""The operations of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byteor.client.request import OMITTED, Omitted, given, quoted
from byteor.client.runtime import Calls

if TYPE_CHECKING:
    from datetime import datetime

    from byteor.client import models as m
    from byteor.client.request import Upload
    from byteor.client.runtime import Download, Pages


class Environment(Calls):
    """The operations of an environment."""

    def __init__(self, calls: Calls, org_id: str, project_id: str, env_id: str) -> None:
        super().__init__(calls)
        self._path = f"/api/v1/orgs/{quoted(org_id)}/projects/{quoted(project_id)}/environments/{quoted(env_id)}"

    def get_environment(self) -> m.Environment:
        """Get an environment.

        Returns the environment with all its settings, including defaults.

        Requires the permission `environment:view`.
        """
        found: m.Environment = self._call("GET", f"{self._path}", "Environment")
        return found

    def update_environment(
        self,
        *,
        name: str | None = None,
        posture: str | None = None,
        settings: m.EnvironmentSettingsRequest | None = None,
        position: int | None = None,
        if_match: str | None = None,
    ) -> m.Environment:
        """Update an environment.

        Changes the fields in the body and keeps all others. The same applies to the keys of `settings`. Loosening
        the approval, replay, replay gate or freeze rules of a `staging` or `prod` environment requires `org_admin`.

        Requires the permission `environment:manage`.

        Args:
            name: The environment's name, unique in the project.
            posture: How strict the environment's default settings are. The posture cannot be changed after
                creation.
            settings: The environment's settings. An update changes only the keys that it contains.
            position: The environment's place in the order of the project's environments, counted from 1. By
                default, a new environment is the last one. When an environment is moved, the positions of the
                environments between its old and its new position change by 1. When an environment is inserted
                or deleted, the positions of the following ones increase or decrease by 1. A position that is
                greater than the number of environments is refused with 400. A new environment counts in this
                number.
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: m.Environment = self._call(
            "PUT",
            f"{self._path}",
            "Environment",
            fields={
                "name": given(name),
                "posture": given(posture),
                "settings": given(settings),
                "position": given(position),
            },
            headers={"If-Match": given(if_match)},
        )
        return found

    def delete_environment(self, *, if_match: str | None = None) -> None:
        """Delete an environment.

        Deletes the environment and everything in it. The environment disappears immediately for all callers, and
        the keys of its agents are rejected. The audit events are kept.

        Requires the permission `project:manage`.

        Args:
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: None = self._call("DELETE", f"{self._path}", "", headers={"If-Match": given(if_match)})
        return found

    def list_agents(
        self,
        *,
        bundle_hash: str | None = None,
        cloned: bool | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        drained: bool | None = None,
        drifted: bool | None = None,
        hostname: str | None = None,
        label: list[str] | None = None,
        limit: int | None = None,
        liveness: str | None = None,
        name: str | None = None,
        progress: str | None = None,
        query: str | None = None,
        status: str | None = None,
    ) -> Pages[m.ListedAgent]:
        """List agents.

        Returns the environment's enrolled agents, newest first, with the bundle that each agent should run and the
        bundle that it runs.

        Requires the permission `environment:view`.

        Args:
            bundle_hash: Returns only agents that run the deploy bundle with this SHA-256.
            cloned: If true, returns only agents with a suspected clone. If false, returns only agents without
                one.
            created_after: Returns only agents created at or after this time.
            created_before: Returns only agents created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            drained: If true, returns only drained agents. If false, returns only agents that are not drained.
            drifted: If true, returns only agents that do not run the bundle that they should run. If false,
                returns only the other agents.
            hostname: Returns only agents whose host name contains this text.
            label: Returns only agents that have this label with this value (`key=value`), have it with any
                value (`key`), or do not have it (`!key`). To combine conditions, repeat the parameter, or
                separate the conditions by commas. Returns only agents that meet all conditions.
            limit: The maximum number of rows per page.
            liveness: Returns only agents whose `liveness` is this value.
            name: Returns only agents whose name contains this text.
            progress: Returns only agents whose `progress` is this value.
            query: Returns only agents that match all terms of this search, which are separated by spaces:
                `zone=eu-1` (has this label), `has:zone` (has a label with this key), `!zone` (has no label with
                this key), `status:failed`, `liveness:offline`, `drift:yes`, `drained:no`, `cloned:yes`,
                `pipeline:quotes` (runs this pipeline), `v7` or `quotes@v7` (runs this version), `agent:1.4.2`
                (has this agent version). Any other word must be a part of the agent's name or host name, or the
                agent's whole id. Put values with spaces in double quotes.
            status: Returns only agents whose `status` is this value.
        """
        found: Pages[m.ListedAgent] = self._pages(
            "GET",
            f"{self._path}/agents",
            "PaginatedListedAgentList",
            query={
                "bundle_hash": given(bundle_hash),
                "cloned": given(cloned),
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "drained": given(drained),
                "drifted": given(drifted),
                "hostname": given(hostname),
                "label": given(label),
                "limit": given(limit),
                "liveness": given(liveness),
                "name": given(name),
                "progress": given(progress),
                "query": given(query),
                "status": given(status),
            },
        )
        return found

    def enroll_agent(
        self,
        *,
        name: str | None = None,
        hostname: str | None = None,
        labels: dict[str, str] | None = None,
        public_key: str | None = None,
        idempotency_key: str | None = None,
    ) -> m.Enrolled:
        """Enroll an agent.

        Spends one use of an enrollment token and creates an agent. Only this response contains the agent key
        (`api_key`). If another agent has the requested name, the new agent replaces it if the token permits this
        (`replace`). Otherwise, returns 409. Fails with `quota.agents` if the organization has used up its agent
        quota, unless the new agent replaces another one.

        Args:
            name: The agent's name, unique in the environment. Defaults to a name derived from `hostname`, or
                from `agent` if `hostname` is missing.
            hostname: The host name of the agent's machine.
            labels: The agent's labels. A label of the enrollment token overrides a label with the same key.
            public_key: A public key of the agent. The service stores it but does not use it.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Enrolled = self._call(
            "POST",
            f"{self._path}/agents",
            "Enrolled",
            fields={
                "name": given(name),
                "hostname": given(hostname),
                "labels": given(labels),
                "public_key": given(public_key),
            },
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_agent(self, id: str) -> m.Agent:
        """Get an agent.

        Returns one agent of the environment.

        Requires the permission `environment:view`.
        """
        found: m.Agent = self._call("GET", f"{self._path}/agents/{quoted(id)}", "Agent")
        return found

    def update_agent(
        self, id: str, *, name: str | None = None, labels: dict[str, str] | None = None, if_match: str | None = None
    ) -> m.Agent:
        """Update an agent.

        Changes the agent's name or labels. New labels replace all old labels, and can make the agent match the
        target of a current deployment. So changing labels in a `prod` environment requires the permission to manage
        the environment. Without this permission, returns 403.

        Requires the permission `environment:operate`.

        Args:
            name: The agent's name, unique in the environment.
            labels: The agent's labels: up to 64 key-value pairs, which selectors match.
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: m.Agent = self._call(
            "PATCH",
            f"{self._path}/agents/{quoted(id)}",
            "Agent",
            fields={"name": given(name), "labels": given(labels)},
            headers={"If-Match": given(if_match)},
        )
        return found

    def decommission_agent(self, id: str, *, if_match: str | None = None) -> None:
        """Decommission an agent.

        Revokes the agent's keys and removes the agent from the fleet.

        Requires the permission `environment:operate`.

        Args:
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: None = self._call(
            "DELETE", f"{self._path}/agents/{quoted(id)}", "", headers={"If-Match": given(if_match)}
        )
        return found

    def request_capture(
        self, id: str, *, reason: str, last_n: int | None = None, idempotency_key: str | None = None
    ) -> m.RequestedCapture:
        """Request a capture from an agent.

        Asks the agent to upload a capture of the pipeline that it runs. The response to the agent's next heartbeat
        contains the command `capture`. The agent then uploads an incident bundle, or a diagnostic that says why it
        cannot upload one. `getRequestedCapture` shows whether the agent has uploaded the capture. The request
        expires after an hour if nothing was uploaded. A capture that is uploaded later is still stored. At most one
        capture a minute can be requested from an agent. Further requests return 429.

        Requires the permission `environment:operate`.

        Args:
            reason: Why the capture is needed. The agent gets the reason and uploads it as metadata of the
                artifact.
            last_n: The number of records to capture from the end of each journal. Defaults to all records that
                the agent has.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.RequestedCapture = self._call(
            "POST",
            f"{self._path}/agents/{quoted(id)}/capture",
            "RequestedCapture",
            fields={"reason": reason, "last_n": given(last_n)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def list_requested_captures(
        self,
        id: str,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        status: str | None = None,
    ) -> Pages[m.RequestedCapture]:
        """List requested captures.

        Returns the captures that were requested from the agent in the last 90 days, newest first. Also works for a
        decommissioned agent.

        Requires the permission `environment:view`.

        Args:
            created_after: Returns only requested captures created at or after this time.
            created_before: Returns only requested captures created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
            status: Returns only requested captures whose `status` is this value.
        """
        found: Pages[m.RequestedCapture] = self._pages(
            "GET",
            f"{self._path}/agents/{quoted(id)}/captures",
            "PaginatedRequestedCaptureList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "limit": given(limit),
                "status": given(status),
            },
        )
        return found

    def get_requested_capture(self, id: str, capture_id: str) -> m.RequestedCapture:
        """Get a requested capture.

        Returns a capture that was requested from the agent. Its `status` and `artifact_id` show whether the agent
        has uploaded it.

        Requires the permission `environment:view`.
        """
        found: m.RequestedCapture = self._call(
            "GET", f"{self._path}/agents/{quoted(id)}/captures/{quoted(capture_id)}", "RequestedCapture"
        )
        return found

    def drain_agent(self, id: str, *, reason: str | None = None, idempotency_key: str | None = None) -> m.Agent:
        """Drain an agent.

        Excludes the agent from new offers, for example while its host is repaired. The agent keeps running its
        bundle and may finish an offer that it already has. A drained agent is in no target: new deployments, later
        waves and retries skip it, and no rollout waits for it. Rollbacks still reach it, because they undo an
        earlier offer. Liveness and drift are reported as usual.

        Requires the permission `environment:operate`.

        Args:
            reason: Why the agent is drained or undrained. The audit event records the reason. The reason of a
                drain is also shown as `drain_reason` until the agent is undrained.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Agent = self._call(
            "POST",
            f"{self._path}/agents/{quoted(id)}/drain",
            "Agent",
            fields={"reason": given(reason)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def explain_agent(self, id: str) -> m.Explanation:
        """Explain what an agent runs.

        Returns the reasons why the agent runs what it runs, with the main reason first, and the events that come
        next, with the soonest first. The agent may be decommissioned.

        Requires the permission `environment:view`.
        """
        found: m.Explanation = self._call("GET", f"{self._path}/agents/{quoted(id)}/explain", "Explanation")
        return found

    def list_agent_history(
        self,
        id: str,
        *,
        cursor: str | None = None,
        limit: int | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> Pages[m.RunningInterval]:
        """List what an agent has run.

        Returns the intervals in which the agent ran one bundle, newest first, with the deployment and the approval
        of each. The agent may be decommissioned. A new interval starts when a heartbeat reports another bundle,
        deployment or spec hash. If the agent already has 1,000 intervals within a day, the last one is overwritten
        instead. Intervals are deleted 365 days after they end.

        Requires the permission `environment:view`.

        Args:
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
            since: Returns only intervals that ended after this time or have not ended.
            until: Returns only intervals that started before this time.
        """
        found: Pages[m.RunningInterval] = self._pages(
            "GET",
            f"{self._path}/agents/{quoted(id)}/history",
            "PaginatedRunningIntervalList",
            query={"cursor": given(cursor), "limit": given(limit), "since": given(since), "until": given(until)},
        )
        return found

    def rotate_agent_key(
        self, id: str, *, mode: str | None = None, idempotency_key: str | None = None
    ) -> m.RotatedKey | m.RequestedRotation:
        """Rotate an agent's key.

        With `mode: now`, the default, returns a new agent key and revokes the old keys immediately. With `mode:
        by_agent`, returns 202. The responses to the agent's heartbeats then contain the command `rotate_key` until
        the agent uses a new key that it fetched with `rotateOwnKey`, or until the key is rotated with `now`. While
        a clone of the agent is suspected (see `clone_suspected_at`), `by_agent` returns 409, because the clone
        could fetch the new key. If a person rotates the key with `now`, the suspicion is cleared.

        Requires the permission `environment:operate`.

        Args:
            mode: `now`: the response contains the new key, and the old keys are revoked immediately.
                `by_agent`: the agent is asked to fetch a new key itself. Defaults to `now`.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.RotatedKey | m.RequestedRotation = self._call(
            "POST",
            f"{self._path}/agents/{quoted(id)}/rotate-key",
            "RotatedKey|RequestedRotation",
            fields={"mode": given(mode)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_agent_series(self, id: str, *, since: str | None = None, until: str | None = None) -> m.Series:
        """Get the series of an agent.

        Returns what the agent's heartbeats reported in each slot of 15 minutes, oldest first. The current slot is
        included, up to the last heartbeat. Also works for a decommissioned agent. Slots older than 90 days are
        deleted.

        A counter's value is its increase in the slot. If a counter is lower than before, or the counters come from
        another process or deployment, all counters are assumed to have started again at 0. If the agent sends
        `boot_id` and `uptime_s`, heartbeats that arrive late or come from one of the three previous processes are
        recognized, and add nothing to the counters. Values are ignored if they are negative or too large: more than
        1,000,000 for `cpu_percent`, or more than 2^53 - 1 for the others. Counters that are not integers are
        ignored as well.

        Requires the permission `environment:view`.

        Args:
            since: The start of the time range, not in the future. The first point is the slot that contains
                this time, or the oldest kept slot if this time is earlier. Defaults to 24 hours before `until`.
            until: The end of the time range, after `since` and not in the future. Slots that start at or after
                this time are left out. Defaults to the current time.
        """
        found: m.Series = self._call(
            "GET",
            f"{self._path}/agents/{quoted(id)}/series",
            "Series",
            query={"since": given(since), "until": given(until)},
        )
        return found

    def undrain_agent(self, id: str, *, reason: str | None = None, idempotency_key: str | None = None) -> m.Agent:
        """Undrain an agent.

        Makes the agent eligible for new offers again. If the agent matches the target of a current deployment that
        it has not been offered yet, it is offered this deployment like a late joiner.

        Requires the permission `environment:operate`.

        Args:
            reason: Why the agent is drained or undrained. The audit event records the reason. The reason of a
                drain is also shown as `drain_reason` until the agent is undrained.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Agent = self._call(
            "POST",
            f"{self._path}/agents/{quoted(id)}/undrain",
            "Agent",
            fields={"reason": given(reason)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def label_agents(
        self,
        *,
        selector: dict[str, str],
        set: dict[str, str] | None = None,
        unset: list[str] | None = None,
        dry_run: bool | None = None,
        idempotency_key: str | None = None,
    ) -> m.Relabeled:
        """Change the labels of many agents.

        Changes the labels of all agents that match the selector, in one transaction. Changed agents that now match
        the target of a current deployment can then be offered that deployment, but not if they are drained or have
        an offer of a deployment in flight. Agents that no longer match keep their bundle. In a `prod` environment,
        this requires the permission `environment:manage`. Use `dry_run` to see the effect first.

        Requires the permission `environment:operate`.

        Args:
            selector: The labels that an agent must have. All of them must match. At least one is required.
            set: The labels to add or replace.
            unset: The keys of the labels to remove.
            dry_run: Whether to only return the effect, without changing anything. Defaults to false.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Relabeled = self._call(
            "POST",
            f"{self._path}/agents/labels",
            "Relabeled",
            fields={"selector": selector, "set": given(set), "unset": given(unset), "dry_run": given(dry_run)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_agent_summary(self) -> m.AgentSummary:
        """Get a summary of the agents.

        Returns the number of agents in the environment, in total and by liveness, drift, suspected clone, status,
        version and label.

        Requires the permission `environment:view`.
        """
        found: m.AgentSummary = self._call("GET", f"{self._path}/agents/summary", "AgentSummary")
        return found

    def list_approvals(
        self,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        deployment_id: str | None = None,
        limit: int | None = None,
        replay_id: str | None = None,
        status: str | None = None,
    ) -> Pages[m.ListedApproval]:
        """List approvals.

        Returns the environment's approvals with their decisions, newest first.

        Requires the permission `environment:view`.

        Args:
            created_after: Returns only approvals created at or after this time.
            created_before: Returns only approvals created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            deployment_id: Returns only approvals whose `deployment_id` is this value.
            limit: The maximum number of rows per page.
            replay_id: Returns only approvals whose `replay_id` is this value.
            status: Returns only approvals whose `status` is this value.
        """
        found: Pages[m.ListedApproval] = self._pages(
            "GET",
            f"{self._path}/approvals",
            "PaginatedListedApprovalList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "deployment_id": given(deployment_id),
                "limit": given(limit),
                "replay_id": given(replay_id),
                "status": given(status),
            },
        )
        return found

    def decide_approval(
        self,
        *,
        decision: str,
        deployment_id: str | None = None,
        replay_id: str | None = None,
        comment: str | None = None,
        expires_in_s: int | None = None,
        accept_groups: list[str] | None = None,
        regression_id: str | None = None,
        wave: int | None = None,
        digest: str | None = None,
        idempotency_key: str | None = None,
    ) -> m.Approval:
        """Approve or deny.

        Records the caller's decision on a deployment or an execute replay, and returns the approval. One denial
        denies the request. When enough people have approved, the approval credential is issued, and the deployment
        or replay can start. A break-glass deployment can start before it is approved. Only a person can decide, not
        an API key. The requester may approve only if `allow_self_approval` is true. If the approval has
        `reviewers`, only they can decide. Otherwise, the caller needs the permission `environment:operate`. A
        decision on a wave must contain `wave` and the `digest` of the wave's report. No credential is issued for a
        wave.

        Requires the permission `environment:view`.

        Args:
            decision: Whether to approve or to deny the request.
            deployment_id: The id of the deployment to decide on. Send either this or `replay_id`.
            replay_id: The id of the execute replay to decide on. Send either this or `deployment_id`.
            comment: A comment for the requester. Required for a denial, and with `accept_groups`.
            expires_in_s: The number of seconds until the approval credential expires, counted from the decision
                or from the start time of the deployment, whichever is later. Used only for the last required
                approval, which issues the credential. Do not send it with `wave`. The environment's
                `approval_ttl_s` is both the default and the maximum. For a deployment, the setting's value at
                the creation of the deployment applies.
            accept_groups: The ids of groups of differences to accept together with the approval. They must be
                in the regression of the deployment. The comment is the reason. Do not send it with `wave` or
                `replay_id`.
            regression_id: The id of the regression that you have read. If it is no longer the deployment's
                regression, returns 409 `acceptance.outdated`. By default, this is not checked. Do not send it
                with `wave` or `replay_id`.
            wave: The wave to decide on, counted from 0. Send it with `deployment_id` and `digest`. By default,
                the decision is on the deployment's own approval.
            digest: The `digest` of the wave's report that you have read. If the report has changed since,
                returns 409 `approval.outdated`. Required with `wave`.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Approval = self._call(
            "POST",
            f"{self._path}/approvals",
            "Approval",
            fields={
                "decision": decision,
                "deployment_id": given(deployment_id),
                "replay_id": given(replay_id),
                "comment": given(comment),
                "expires_in_s": given(expires_in_s),
                "accept_groups": given(accept_groups),
                "regression_id": given(regression_id),
                "wave": given(wave),
                "digest": given(digest),
            },
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_approval(self, id: str) -> m.Approval:
        """Get an approval.

        Returns the approval with its decisions. The `credential` is null for callers without the permission
        `environment:operate`.

        Requires the permission `environment:view`.
        """
        found: m.Approval = self._call("GET", f"{self._path}/approvals/{quoted(id)}", "Approval")
        return found

    def get_approval_packet(self, id: str) -> m.Packet:
        """Get the packet of an approval.

        Returns what a reviewer should know before the decision: what changes in the pipeline, in the configuration
        and in the output, which configurations agents run now, what was not tested, how much more work the
        candidate needs, which fixtures were removed, and what a rollback would restore. A response is limited to 4
        MiB (see `truncated`). Callers without the permission `environment:operate` get the examples without
        payloads. Returns 409 with the code `approval.no_packet` for the approval of a replay or of a wave.

        Requires the permission `environment:view`.
        """
        found: m.Packet = self._call("GET", f"{self._path}/approvals/{quoted(id)}/packet", "Packet")
        return found

    def remind_approval(self, id: str, *, idempotency_key: str | None = None) -> m.Approval:
        """Send a reminder of an approval.

        Sends another notification to the people who can still decide on the pending approval. Only the requester,
        or an API key that the requester created, can send a reminder. If an API key requested the approval, the
        requester is the person who created the key. Returns 403 to other callers, 409 if the approval is not
        pending or has expired, and 429 within an hour of the last reminder.

        Requires the permission `environment:operate`.

        Args:
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Approval = self._call(
            "POST",
            f"{self._path}/approvals/{quoted(id)}/remind",
            "Approval",
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def revoke_approval(self, id: str, *, idempotency_key: str | None = None) -> m.Approval:
        """Revoke an approval.

        Revokes an approval that is pending, or that is approved and has not been used. Its deployment or replay
        then does not start. A break-glass deployment is rolled back, if possible. If not, it keeps running if it is
        current, and fails if it has not finished. The approval of a wave is requested again.

        Requires the permission `environment:operate`.

        Args:
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Approval = self._call(
            "POST",
            f"{self._path}/approvals/{quoted(id)}/revoke",
            "Approval",
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def list_artifacts(
        self,
        *,
        agent_id: str | None = None,
        captured_after: str | None = None,
        captured_before: str | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        deployment_id: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        spec_hash: str | None = None,
        status: str | None = None,
        version_id: str | None = None,
    ) -> Pages[m.ListedArtifact]:
        """List artifacts.

        Returns the artifacts of the environment, newest first.

        Requires the permission `environment:view`.

        Args:
            agent_id: Returns only artifacts whose `agent_id` is this value.
            captured_after: Returns only artifacts captured at or after this time.
            captured_before: Returns only artifacts captured before this time.
            created_after: Returns only artifacts created at or after this time.
            created_before: Returns only artifacts created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            deployment_id: Returns only artifacts whose `deployment_id` is this value.
            kind: Returns only artifacts whose `kind` is this value.
            limit: The maximum number of rows per page.
            spec_hash: Returns only artifacts whose `spec_hash` is this value.
            status: Returns only artifacts whose `status` is this value.
            version_id: Returns only artifacts whose `version_id` is this value.
        """
        found: Pages[m.ListedArtifact] = self._pages(
            "GET",
            f"{self._path}/artifacts",
            "PaginatedListedArtifactList",
            query={
                "agent_id": given(agent_id),
                "captured_after": given(captured_after),
                "captured_before": given(captured_before),
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "deployment_id": given(deployment_id),
                "kind": given(kind),
                "limit": given(limit),
                "spec_hash": given(spec_hash),
                "status": given(status),
                "version_id": given(version_id),
            },
        )
        return found

    def get_artifact(self, id: str) -> m.Artifact:
        """Get an artifact.

        Returns the artifact. After its check, `status` and `reasons` contain the result.

        Requires the permission `environment:view`.
        """
        found: m.Artifact = self._call("GET", f"{self._path}/artifacts/{quoted(id)}", "Artifact")
        return found

    def bisect_artifact(
        self,
        id: str,
        *,
        predicate: str | m.Predicate1,
        pipeline: str | None = None,
        good: str | None = None,
        bad: str | None = None,
        exhaustive: bool | None = None,
        idempotency_key: str | None = None,
    ) -> m.Bisect:
        """Bisect an artifact.

        Searches for the first bad version of a pipeline by replaying a verified incident bundle through its
        versions. The search covers the versions from `good` to `bad`. It replays the oldest and the newest of these
        versions, and then only the versions between them that the search needs. With `exhaustive`, it replays all
        versions from `good` to `bad`.

        Requires the permission `environment:operate`.

        Args:
            predicate: The condition under which a version is bad. `diverges`: its output differs from the
                capture's expected output, or a stage fails and the recording does not contain this failure.
                `fails`: a stage fails. `output_differs_from`: its output differs from that of another replay.
            pipeline: The name of the pipeline. Defaults to the pipeline of the version that produced the
                artifact.
            good: The id of the version at which the search starts. Defaults to the oldest version.
            bad: The id of the version at which the search stops. Defaults to the newest version.
            exhaustive: Whether to replay all versions from `good` to `bad`, at most 256. `monotone` is
                determined only in this case.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Bisect = self._call(
            "POST",
            f"{self._path}/artifacts/{quoted(id)}/bisect",
            "Bisect",
            fields={
                "predicate": predicate,
                "pipeline": given(pipeline),
                "good": given(good),
                "bad": given(bad),
                "exhaustive": given(exhaustive),
            },
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def download_artifact(self, id: str) -> Download:
        """Download an artifact.

        Returns the unchanged content of the artifact.

        Requires the permission `environment:operate`.
        """
        found: Download = self._download("GET", f"{self._path}/artifacts/{quoted(id)}/content", "")
        return found

    def list_artifact_files(self, id: str, *, after: str | None = None, path: str | None = None) -> m.ArtifactFiles:
        """List or download the files of an artifact.

        Returns the path, size and SHA-256 of each file in a verified incident bundle. With `path`, returns the
        content of that file as an attachment. A page of the list is limited to 4 MiB; use `after` to get the next
        page.

        Requires the permission `environment:operate`.

        Args:
            after: Returns only the files that follow this path in the sorted list.
            path: The path of the file to download.
        """
        found: m.ArtifactFiles = self._call(
            "GET",
            f"{self._path}/artifacts/{quoted(id)}/files",
            "ArtifactFiles",
            query={"after": given(after), "path": given(path)},
        )
        return found

    def list_artifact_files_content(self, id: str, *, after: str | None = None, path: str | None = None) -> Download:
        """List or download the files of an artifact.

        Returns the path, size and SHA-256 of each file in a verified incident bundle. With `path`, returns the
        content of that file as an attachment. A page of the list is limited to 4 MiB; use `after` to get the next
        page.

        Requires the permission `environment:operate`.

        Args:
            after: Returns only the files that follow this path in the sorted list.
            path: The path of the file to download.
        """
        found: Download = self._download(
            "GET", f"{self._path}/artifacts/{quoted(id)}/files", "", query={"after": given(after), "path": given(path)}
        )
        return found

    def read_artifact_journal(
        self,
        id: str,
        lane: str,
        *,
        after: int | None = None,
        limit: int | None = None,
        sequence: int | None = None,
        time: str | None = None,
    ) -> m.JournalPage:
        """Read a journal of an artifact.

        Returns one page of the records of a lane, in sequence order. Use at most one of `after`, `sequence` and
        `time` to choose where the page starts. A page is limited to 4 MiB, so it may have fewer than `limit`
        records.

        Requires the permission `environment:operate`.

        Args:
            after: Start after the record at this position.
            limit: The maximum number of records per page.
            sequence: Start at the first record with this sequence number or a higher one.
            time: Start at the first record at or after this time.
        """
        found: m.JournalPage = self._call(
            "GET",
            f"{self._path}/artifacts/{quoted(id)}/journal/{quoted(lane)}",
            "JournalPage",
            query={"after": given(after), "limit": given(limit), "sequence": given(sequence), "time": given(time)},
        )
        return found

    def replay_artifact(
        self,
        id: str,
        *,
        mode: str | None = None,
        journal_lane: str | None = None,
        last_n: int | None = None,
        version_id: str | None = None,
        config_bundle_id: str | None = None,
        approval: str | None = None,
        idempotency_key: str | None = None,
    ) -> m.Replay:
        """Replay an artifact.

        Runs the recorded input of a verified incident bundle through a version. By default this is a dry run. The
        mode `execute` also performs the side effects that the allowlists of the server and the stages permit.
        Returns 409 if the environment does not permit `execute`. If an approval is needed and the request contains
        none, the approval is requested, and the replay waits for it. Returns 422 if the request names neither a
        version nor a config bundle, and no version has the artifact's spec hash.

        Requires the permission `environment:operate`.

        Args:
            mode: `dry_run` performs no side effects. `execute` performs the permitted side effects. Defaults to
                `dry_run`.
            journal_lane: The ingress whose journal is replayed. By default, the journals of all ingresses are
                replayed together.
            last_n: The number of records to replay from the end of the input. Defaults to all records.
            version_id: The id of the version to replay through. Defaults to the version of `config_bundle_id`,
                or to the version that produced the artifact.
            config_bundle_id: The id of the config bundle whose version and stage parameters are used. By
                default, the parameters are taken from the artifact, or from its deployment if the artifact has
                none. If the version has another spec than the artifact, these parameters are used only for
                stages with the same id and op. Stages without parameters then use those of the newest config
                bundle of the version.
            approval: The credential of an unused approval. Only accepted with the mode `execute`.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Replay = self._call(
            "POST",
            f"{self._path}/artifacts/{quoted(id)}/replay",
            "Replay",
            fields={
                "mode": given(mode),
                "journal_lane": given(journal_lane),
                "last_n": given(last_n),
                "version_id": given(version_id),
                "config_bundle_id": given(config_bundle_id),
                "approval": given(approval),
            },
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def list_bisects(
        self,
        *,
        artifact_id: str | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        outcome: str | None = None,
        status: str | None = None,
    ) -> Pages[m.ListedBisect]:
        """List bisects.

        Returns the bisects of the environment, newest first.

        Requires the permission `environment:view`.

        Args:
            artifact_id: Returns only bisects whose `artifact_id` is this value.
            created_after: Returns only bisects created at or after this time.
            created_before: Returns only bisects created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
            outcome: Returns only bisects whose `outcome` is this value.
            status: Returns only bisects whose `status` is this value.
        """
        found: Pages[m.ListedBisect] = self._pages(
            "GET",
            f"{self._path}/bisects",
            "PaginatedListedBisectList",
            query={
                "artifact_id": given(artifact_id),
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "limit": given(limit),
                "outcome": given(outcome),
                "status": given(status),
            },
        )
        return found

    def get_bisect(self, id: str) -> m.Bisect:
        """Get a bisect.

        Returns the bisect with the verdicts so far, and with its outcome after it has finished.

        Requires the permission `environment:view`.
        """
        found: m.Bisect = self._call("GET", f"{self._path}/bisects/{quoted(id)}", "Bisect")
        return found

    def list_config_bundles(
        self,
        *,
        config_hash: str | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        name: str | None = None,
        version_id: str | None = None,
    ) -> Pages[m.ListedConfigBundle]:
        """List config bundles.

        Returns the environment's config bundles, newest first.

        Requires the permission `environment:view`.

        Args:
            config_hash: Returns only config bundles whose `config_hash` is this value.
            created_after: Returns only config bundles created at or after this time.
            created_before: Returns only config bundles created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
            name: Returns only config bundles whose name contains this text.
            version_id: Returns only config bundles whose `version_id` is this value.
        """
        found: Pages[m.ListedConfigBundle] = self._pages(
            "GET",
            f"{self._path}/config-bundles",
            "PaginatedListedConfigBundleList",
            query={
                "config_hash": given(config_hash),
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "limit": given(limit),
                "name": given(name),
                "version_id": given(version_id),
            },
        )
        return found

    def create_config_bundle(
        self,
        *,
        name: str | None = None,
        version_id: str | None = None,
        from_config_bundle_id: str | None = None,
        tuning_profile: str | None = None,
        wait: str | None = None,
        stage_config: dict[str, Any] | None = None,
        adapters: m.AdaptersRequest | None = None,
        env: dict[str, str | m.Env] | None = None,
        snapshot: m.SnapshotRequest | None = None,
        idempotency_key: str | None = None,
    ) -> m.ConfigBundle:
        """Create a config bundle.

        Creates an immutable config bundle from a version and a runtime configuration. The `config_hash` identifies
        its content. With `from_config_bundle_id` instead, copies a config bundle of another environment of the
        project, with its name, its configuration and its version, so that the `config_hash` is the same. If this
        environment has no version of the pipeline with the same spec hash, the version is copied as well. If this
        environment already has a config bundle with the same name and `config_hash`, a copy request returns 200
        with that config bundle. If a config bundle of this environment has the name but another `config_hash`, the
        request fails with `name_taken`. A copy deploys nothing, and may be known bad in this environment.

        Requires the permission `environment:operate`.

        Args:
            name: The config bundle's name, unique in the environment. Required unless `from_config_bundle_id`
                is sent.
            version_id: The id of the version that the config bundle runs. Required unless
                `from_config_bundle_id` is sent.
            from_config_bundle_id: The id of a config bundle to copy, from another environment of the same
                project. No other field may be sent with it.
            tuning_profile: How the runtime uses the host's cores. Defaults to `default`.
            wait: How the runtime waits for records: by sleeping (`backoff`) or by occupying a core (`spin`).
                Defaults to the value of the tuning profile.
            stage_config: The parameters of the stages, by stage id.
            adapters: The adapters with which the pipeline reads and writes records.
            env: Environment variables. A value is a string, or `{"secret_ref": "NAME"}` for a secret on the
                host of the agent.
            snapshot: Whether and how often the runtime takes snapshots of its state.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.ConfigBundle = self._call(
            "POST",
            f"{self._path}/config-bundles",
            "ConfigBundle",
            fields={
                "name": given(name),
                "version_id": given(version_id),
                "from_config_bundle_id": given(from_config_bundle_id),
                "tuning_profile": given(tuning_profile),
                "wait": given(wait),
                "stage_config": given(stage_config),
                "adapters": given(adapters),
                "env": given(env),
                "snapshot": given(snapshot),
            },
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_config_bundle(self, id: str) -> m.ConfigBundle:
        """Get a config bundle.

        Returns the config bundle.

        Requires the permission `environment:view`.
        """
        found: m.ConfigBundle = self._call("GET", f"{self._path}/config-bundles/{quoted(id)}", "ConfigBundle")
        return found

    def clear_config_bundle(self, id: str, *, reason: str, idempotency_key: str | None = None) -> m.ConfigBundle:
        """Clear a known bad config bundle.

        Allows the config bundle's configuration to be deployed in this environment again. The reason is recorded in
        the audit trail.

        Requires the permission `environment:operate`.

        Args:
            reason: The reason, in your own words. It is stored in the audit trail.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.ConfigBundle = self._call(
            "POST",
            f"{self._path}/config-bundles/{quoted(id)}/clear",
            "ConfigBundle",
            fields={"reason": reason},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def list_deployments(
        self,
        *,
        config_bundle_id: str | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        is_current: bool | None = None,
        limit: int | None = None,
        pipeline: str | None = None,
        status: str | None = None,
    ) -> Pages[m.ListedDeployment]:
        """List deployments.

        Returns the environment's deployments, newest first.

        Requires the permission `environment:view`.

        Args:
            config_bundle_id: Returns only deployments whose `config_bundle_id` is this value.
            created_after: Returns only deployments created at or after this time.
            created_before: Returns only deployments created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            is_current: If true, returns only current deployments. If false, returns only deployments that are
                not current.
            limit: The maximum number of rows per page.
            pipeline: Returns only deployments whose `pipeline` is this value.
            status: Returns only deployments whose `status` is this value.
        """
        found: Pages[m.ListedDeployment] = self._pages(
            "GET",
            f"{self._path}/deployments",
            "PaginatedListedDeploymentList",
            query={
                "config_bundle_id": given(config_bundle_id),
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "is_current": given(is_current),
                "limit": given(limit),
                "pipeline": given(pipeline),
                "status": given(status),
            },
        )
        return found

    def create_deployment(
        self,
        *,
        config_bundle_id: str,
        target: m.TargetRequest,
        strategy: m.StrategyRequest | None = None,
        take_over: bool | None = None,
        approval: str | None = None,
        override_freeze: m.ReasonRequest | None = None,
        override_replay_gate: m.ReasonRequest | None = None,
        explain: list[m.DifferenceExplanationRequest] | None = None,
        break_glass: m.BreakGlassRequest | Omitted | None = OMITTED,
        start_at: datetime | Omitted | None = OMITTED,
        reviewers: list[str] | None = None,
        note: str | None = None,
        idempotency_key: str | None = None,
    ) -> m.Deployment:
        """Create a deployment.

        Creates a deployment of a config bundle to a target. Its first status is `pending_approval` if the
        environment requires approval and neither `approval` nor `break_glass` is sent, and `approved` otherwise.
        Returns the error `quota.stored_bytes` if the deploy bundle would exceed the organization's quota. The quota
        is not checked again when the bundle is built.

        Requires the permission `environment:operate`.

        Args:
            config_bundle_id: The id of the config bundle to deploy.
            target: The agents that the deployment is for. Send exactly one of `agents`, `selector` and `all`.
            strategy: How the deployment spreads over the agents. Defaults to `all_at_once`.
            take_over: Whether the deployment may take over agents that run another pipeline. Defaults to false.
            approval: The credential of an unused approval. This request must be the same as the request that
                was approved: the configuration, target, strategy, `take_over`, `override_freeze`,
                `override_replay_gate`, `explain`, `start_at` and `reviewers` must be equal. The note may
                differ. The environment's `agent_timeout_s` must not have changed since.
            override_freeze: Lets the deployment start during a freeze window. Needs a reason and the role
                `org_admin`.
            override_replay_gate: Lets the deployment start although the replay gate would block it. Needs a
                reason and the role `org_admin`.
            explain: The requester's explanations of differences, which approvers see next to the differences.
                At most 100.
            break_glass: Starts the deployment in an emergency before anybody has approved it. Only a person
                with the role `org_admin` may do this. If the deployment is not approved in time, it is rolled
                back if possible. Null for a deployment without break-glass.
            start_at: The time before which the deployment does not start, at most 30 days ahead. Until then, it
                is not in flight, and no other deployment waits for it. The time must not be in a freeze window,
                unless the deployment overrides freeze windows. The time limit for approving the deployment, the
                environment's `approval_ttl_s`, is counted from this time. Null if the deployment starts as soon
                as possible.
            reviewers: The ids of the users who may decide on the approvals of the deployment, whatever their
                role. Defaults to the environment's setting `reviewers`. If the setting is not empty, only
                people in the setting can be named. If the setting is empty in `staging` or `prod`, only an
                `org_admin` can name people without the permission `environment:operate`. If the deployment
                needs no approval, the list is always empty. If the deployment needs approval and the list is
                empty, everybody with the permission `environment:operate` may decide.
            note: The requester's note.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Deployment = self._call(
            "POST",
            f"{self._path}/deployments",
            "Deployment",
            fields={
                "config_bundle_id": config_bundle_id,
                "target": target,
                "strategy": given(strategy),
                "take_over": given(take_over),
                "approval": given(approval),
                "override_freeze": given(override_freeze),
                "override_replay_gate": given(override_replay_gate),
                "explain": given(explain),
                "break_glass": break_glass,
                "start_at": start_at,
                "reviewers": given(reviewers),
                "note": given(note),
            },
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_deployment(self, id: str) -> m.Deployment:
        """Get a deployment.

        Returns the deployment with its status, the progress of its agents, and why agents failed.

        Requires the permission `environment:view`.
        """
        found: m.Deployment = self._call("GET", f"{self._path}/deployments/{quoted(id)}", "Deployment")
        return found

    def abort_deployment(
        self, id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> m.Deployment:
        """Abort a deployment.

        Stops the deployment and sets its status to `failed` with the reason `aborted`. Offers that agents have not
        started are withdrawn. A pending approval is revoked, except the approval after break-glass. Agents that
        already run the bundle keep running it. To restore what they ran before, roll back the deployment.

        Requires the permission `environment:operate`.

        Args:
            reason: The reason, in your own words. It is stored in the audit trail.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Deployment = self._call(
            "POST",
            f"{self._path}/deployments/{quoted(id)}/abort",
            "Deployment",
            fields={"reason": given(reason)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def list_deployment_agents(
        self,
        id: str,
        *,
        cursor: str | None = None,
        has_failure: bool | None = None,
        limit: int | None = None,
        progress: str | None = None,
        wave: int | None = None,
    ) -> Pages[m.DeploymentAgent]:
        """List the agents of a deployment.

        Returns the agents that are enlisted in the deployment, with their wave and progress.

        Requires the permission `environment:view`.

        Args:
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            has_failure: If true, returns only agents with a `failure`. If false, returns only agents without
                one.
            limit: The maximum number of rows per page.
            progress: Returns only deployment agents whose `progress` is this value.
            wave: Returns only deployment agents whose `wave` is this value.
        """
        found: Pages[m.DeploymentAgent] = self._pages(
            "GET",
            f"{self._path}/deployments/{quoted(id)}/agents",
            "PaginatedDeploymentAgentList",
            query={
                "cursor": given(cursor),
                "has_failure": given(has_failure),
                "limit": given(limit),
                "progress": given(progress),
                "wave": given(wave),
            },
        )
        return found

    def export_deployment_evidence(self, id: str) -> Download:
        """Export the evidence of a deployment.

        Returns a tar with the deploy bundle, its envelope, the key set and an unsigned summary. If the deployment
        has an approval, the tar also contains the approval record and, if it was issued, the approval credential.
        These two prove who approved this bundle for this environment. Unless the replay gate was off, the tar also
        contains the signed statements of why the gate let the deployment start (`gate.json`) and, unless the
        regression had been deleted, how the configuration was tested (`test-result.json`). If waves were approved
        or denied, the tar also contains the signed statements of these decisions (`wave-approvals.json`).
        `byteor-verify` checks the tar offline. Returns 409 if the bundle has not been built.

        Requires the permission `environment:operate`.
        """
        found: Download = self._download("GET", f"{self._path}/deployments/{quoted(id)}/evidence", "")
        return found

    def start_next_wave(
        self, id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> m.Deployment:
        """Start the next wave.

        Starts the next wave now, which ends a manual hold and skips the rest of the pause. Returns 409 unless the
        deployment is deploying, all waves that have started have finished, the current one within the failure
        threshold, and there is a next wave. Also returns 409 if the configuration is known bad, while the
        deployment is paused, while the wave waits for approval, and in a freeze window that the deployment does not
        override.

        Requires the permission `environment:operate`.

        Args:
            reason: The reason, in your own words. It is stored in the audit trail.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Deployment = self._call(
            "POST",
            f"{self._path}/deployments/{quoted(id)}/next-wave",
            "Deployment",
            fields={"reason": given(reason)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def pause_deployment(
        self, id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> m.Deployment:
        """Pause a deployment.

        Stops offering the deployment to further agents until it is resumed. Pausing does not change the status. A
        paused deployment can still fail, or become `active` when its last wave has finished. Both end the pause.

        Requires the permission `environment:operate`.

        Args:
            reason: The reason, in your own words. It is stored in the audit trail.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Deployment = self._call(
            "POST",
            f"{self._path}/deployments/{quoted(id)}/pause",
            "Deployment",
            fields={"reason": given(reason)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def resume_deployment(
        self, id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> m.Deployment:
        """Resume a deployment.

        Continues a paused deployment. Its offers that have been held since a restore are resumed as well.

        Requires the permission `environment:operate`.

        Args:
            reason: The reason, in your own words. It is stored in the audit trail.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Deployment = self._call(
            "POST",
            f"{self._path}/deployments/{quoted(id)}/resume",
            "Deployment",
            fields={"reason": given(reason)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def retry_deployment(
        self, id: str, *, reason: str | None = None, agents: list[str] | None = None, idempotency_key: str | None = None
    ) -> m.Deployment:
        """Retry a deployment.

        Offers the deployment again to all agents that failed, or only to those listed in `agents`. Agents that are
        drained or decommissioned, or have another offer, are not retried. The status of a failed deployment becomes
        `deploying`. The status of any other deployment does not change.

        Requires the permission `environment:operate`.

        Args:
            reason: The reason, in your own words. It is stored in the audit trail.
            agents: The ids of the failed agents to retry. Defaults to all failed agents that can be retried.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Deployment = self._call(
            "POST",
            f"{self._path}/deployments/{quoted(id)}/retry",
            "Deployment",
            fields={"reason": given(reason), "agents": given(agents)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def update_deployment_reviewers(
        self, id: str, *, reviewers: list[str], reason: str | None = None, idempotency_key: str | None = None
    ) -> m.Deployment:
        """Update the reviewers of a deployment.

        Replaces the list of the people who may decide on the deployment's approvals, for example because one of
        them has left. Then only the consents of the new reviewers count, or all consents if the new list is empty.
        Reviewers who have approved can stay in the list even if they have left. If enough of these consents exist
        already, the approval is granted, unless it has expired or the report of its wave is outdated. Only an
        `org_admin` may do this. Returns 409 if the deployment needs no approval, or if the replay gate blocks an
        approval that would be granted. Also returns 409 unless the deployment is pending approval or deploying, or
        its approval after break-glass is pending.

        Requires the permission `organization:manage`.

        Args:
            reviewers: The ids of the users who may decide on the deployment's approvals. If empty, everybody
                with the permission `environment:operate` may decide. The list may be empty only if the
                environment's setting `reviewers` is empty.
            reason: The reason, in your own words. It is stored in the audit trail.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Deployment = self._call(
            "POST",
            f"{self._path}/deployments/{quoted(id)}/reviewers",
            "Deployment",
            fields={"reviewers": reviewers, "reason": given(reason)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def roll_back_deployment(
        self,
        id: str,
        *,
        reason: str,
        artifact_id: str | None = None,
        proceed: bool | None = None,
        idempotency_key: str | None = None,
    ) -> m.Deployment:
        """Roll back a deployment.

        Affects all agents that should run the deployment's bundle. Each of them is offered the bundle that it ran
        before. If that bundle cannot be restored, the agent is offered the bundle of the deployment in `restores`.
        The deployment's configuration becomes known bad.

        With `artifact_id`, a dry run of the whole capture must first succeed on each configuration that the
        rollback would restore. There may be several, because agents may have run different configurations before.
        Only dry runs that were requested after the creation of the deployment count. If a replay diverged or
        failed, the response is the error `rollback.proof_failed` with its `replay_id`. Otherwise, the request
        starts the missing replays. Until all replays have finished, the response is the error
        `rollback.proof_pending` with the `replay_id` of an unfinished replay and `Retry-After`. Repeat the request
        then. When all replays have succeeded, the next request starts the rollback. A replay that was canceled or
        interrupted is requested again. Returns 409 if the rollback would restore more than 10 configurations, or a
        configuration of another pipeline. Returns 422 if no version in the environment has the artifact's spec
        hash. With `proceed`, the rollback starts immediately, without these checks.

        Requires the permission `environment:operate`.

        Args:
            reason: The reason, in your own words. It is stored in the audit trail.
            artifact_id: The id of a verified incident bundle of the same pipeline. The rollback starts only
                after a dry run of this capture has succeeded on each configuration that the rollback would
                restore. By default, no proof is needed.
            proceed: Whether to roll back immediately, without the proof that `artifact_id` requires. Has no
                effect without `artifact_id`. Defaults to false.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Deployment = self._call(
            "POST",
            f"{self._path}/deployments/{quoted(id)}/rollback",
            "Deployment",
            fields={"reason": reason, "artifact_id": given(artifact_id), "proceed": given(proceed)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def list_deployment_timeline(
        self, id: str, *, cursor: str | None = None, limit: int | None = None
    ) -> Pages[m.TimelineEntry]:
        """List the timeline of a deployment.

        Returns the events of the deployment, newest first. Events of finished deployments that are not current are
        deleted after a year.

        Requires the permission `environment:view`.

        Args:
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
        """
        found: Pages[m.TimelineEntry] = self._pages(
            "GET",
            f"{self._path}/deployments/{quoted(id)}/timeline",
            "PaginatedTimelineEntryList",
            query={"cursor": given(cursor), "limit": given(limit)},
        )
        return found

    def list_drafts(
        self,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        name: str | None = None,
    ) -> Pages[m.ListedDraft]:
        """List drafts.

        Returns the environment's pipeline drafts, newest first.

        Requires the permission `environment:view`.

        Args:
            created_after: Returns only drafts created at or after this time.
            created_before: Returns only drafts created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
            name: Returns only drafts whose name contains this text.
        """
        found: Pages[m.ListedDraft] = self._pages(
            "GET",
            f"{self._path}/drafts",
            "PaginatedListedDraftList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "limit": given(limit),
                "name": given(name),
            },
        )
        return found

    def create_draft(self, *, name: str, plan: dict[str, Any], idempotency_key: str | None = None) -> m.Draft:
        """Create a draft.

        Saves a plan, even if it does not compile; `diagnostics` contains the compiler's findings. Fails with
        `quota.drafts` if the organization has reached its quota of drafts.

        Requires the permission `environment:operate`.

        Args:
            name: The name of the draft, unique in the environment. The name of the pipeline is in the plan.
            plan: The plan of the pipeline.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Draft = self._call(
            "POST",
            f"{self._path}/drafts",
            "Draft",
            fields={"name": name, "plan": plan},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_draft(self, id: str) -> m.Draft:
        """Get a draft.

        Returns the draft with the diagnostics of its plan.

        Requires the permission `environment:view`.
        """
        found: m.Draft = self._call("GET", f"{self._path}/drafts/{quoted(id)}", "Draft")
        return found

    def update_draft(
        self, id: str, *, name: str | None = None, plan: dict[str, Any] | None = None, if_match: str | None = None
    ) -> m.Draft:
        """Update a draft.

        Changes the fields in the body and keeps the others. Send the draft's `ETag` as `If-Match` to avoid
        overwriting a change by somebody else.

        Requires the permission `environment:operate`.

        Args:
            name: The name of the draft, unique in the environment. The name of the pipeline is in the plan.
            plan: The plan of the pipeline.
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: m.Draft = self._call(
            "PUT",
            f"{self._path}/drafts/{quoted(id)}",
            "Draft",
            fields={"name": given(name), "plan": given(plan)},
            headers={"If-Match": given(if_match)},
        )
        return found

    def delete_draft(self, id: str, *, if_match: str | None = None) -> None:
        """Delete a draft.

        Deletes the draft. Versions that were promoted from it are kept.

        Requires the permission `environment:operate`.

        Args:
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: None = self._call(
            "DELETE", f"{self._path}/drafts/{quoted(id)}", "", headers={"If-Match": given(if_match)}
        )
        return found

    def diff_draft(self, id: str, *, against: str) -> m.Diff:
        """Compare a draft with a version.

        Returns the changes from the version to the draft's saved plan. Fails with 422 if the plan does not compile.

        Requires the permission `environment:view`.

        Args:
            against: The id of the version to compare with.
        """
        found: m.Diff = self._call("GET", f"{self._path}/drafts/{quoted(id)}/diff", "Diff", query={"against": against})
        return found

    def preview_draft(self, id: str, *, plan: dict[str, Any] | None = None, target: str | None = None) -> m.Preview:
        """Preview a draft.

        Compiles the saved plan, or the plan in the body, and saves nothing. If the plan does not compile, returns
        200 with `ok: false` and the diagnostics.

        Requires the permission `environment:operate`.

        Args:
            plan: A plan to compile instead of the saved one.
            target: The target to compile for, instead of the plan's target.
        """
        found: m.Preview = self._call(
            "POST",
            f"{self._path}/drafts/{quoted(id)}/preview",
            "Preview",
            query={"target": given(target)},
            fields={"plan": given(plan)},
        )
        return found

    def promote_draft(
        self,
        id: str,
        *,
        expected_revision: int | None = None,
        idempotency_key: str | None = None,
        if_match: str | None = None,
    ) -> m.Version:
        """Promote a draft to a version.

        Compiles the saved plan to an immutable version with the next number of its pipeline. If the draft's last
        version has the same plan and compiler version, returns that version (200). Fails with 422 if the plan does
        not compile.

        Requires the permission `environment:operate`.

        Args:
            expected_revision: The revision that you read. If the draft has another revision, the request fails
                with 412.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: m.Version = self._call(
            "POST",
            f"{self._path}/drafts/{quoted(id)}/version",
            "Version",
            fields={"expected_revision": given(expected_revision)},
            headers={"Idempotency-Key": given(idempotency_key), "If-Match": given(if_match)},
        )
        return found

    def list_enrollment_tokens(
        self,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Pages[m.EnrollmentToken]:
        """List enrollment tokens.

        Returns the environment's enrollment tokens, newest first, including used, revoked and expired tokens. A
        token is deleted 90 days after it expires or is revoked. The secrets are not included.

        Requires the permission `environment:manage`.

        Args:
            created_after: Returns only enrollment tokens created at or after this time.
            created_before: Returns only enrollment tokens created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
        """
        found: Pages[m.EnrollmentToken] = self._pages(
            "GET",
            f"{self._path}/enrollment-tokens",
            "PaginatedEnrollmentTokenList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "limit": given(limit),
            },
        )
        return found

    def create_enrollment_token(
        self,
        *,
        max_uses: int | None = None,
        labels: dict[str, str] | None = None,
        replace: bool | None = None,
        expires_in_s: int | None = None,
        idempotency_key: str | None = None,
    ) -> m.EnrollmentTokenWithSecret:
        """Create an enrollment token.

        Creates a token with which hosts enroll in this environment. Only this response contains the secret
        (`token`).

        Requires the permission `environment:manage`.

        Args:
            max_uses: How many agents can enroll with the token. Defaults to 1.
            labels: Labels that each agent gets when it enrolls with the token.
            replace: Whether a new agent may take over the name of an existing agent. The existing agent is then
                decommissioned, and its key is revoked. Defaults to false.
            expires_in_s: The seconds until the token expires. Defaults to 3600.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.EnrollmentTokenWithSecret = self._call(
            "POST",
            f"{self._path}/enrollment-tokens",
            "EnrollmentTokenWithSecret",
            fields={
                "max_uses": given(max_uses),
                "labels": given(labels),
                "replace": given(replace),
                "expires_in_s": given(expires_in_s),
            },
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def revoke_enrollment_token(self, id: str) -> None:
        """Revoke an enrollment token.

        Revokes the token, so that no further agents can enroll with it. Agents that are already enrolled are not
        affected.

        Requires the permission `environment:manage`.
        """
        found: None = self._call("DELETE", f"{self._path}/enrollment-tokens/{quoted(id)}", "")
        return found

    def list_fixtures(
        self,
        *,
        artifact_id: str | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        expired: bool | None = None,
        limit: int | None = None,
        name: str | None = None,
        owner: str | None = None,
        pipeline: str | None = None,
    ) -> Pages[m.Fixture]:
        """List fixtures.

        Returns the fixtures of the environment, newest first.

        Requires the permission `environment:view`.

        Args:
            artifact_id: Returns only fixtures whose `artifact_id` is this value.
            created_after: Returns only fixtures created at or after this time.
            created_before: Returns only fixtures created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            expired: If true, returns only expired fixtures. If false, returns only fixtures that have not
                expired.
            limit: The maximum number of rows per page.
            name: Returns only fixtures whose name contains this text.
            owner: Returns only fixtures whose `owner` is this value.
            pipeline: Returns only fixtures whose `pipeline` is this value.
        """
        found: Pages[m.Fixture] = self._pages(
            "GET",
            f"{self._path}/fixtures",
            "PaginatedFixtureList",
            query={
                "artifact_id": given(artifact_id),
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "expired": given(expired),
                "limit": given(limit),
                "name": given(name),
                "owner": given(owner),
                "pipeline": given(pipeline),
            },
        )
        return found

    def create_fixture(
        self,
        *,
        artifact_id: str,
        name: str,
        pipeline: str | None = None,
        owner: str | None = None,
        note: str | None = None,
        journal_lane: str | None = None,
        last_n: int | None = None,
        records: list[int] | None = None,
        expires_at: datetime | None = None,
        expect: str | m.Expect | None = None,
        idempotency_key: str | None = None,
    ) -> m.Fixture:
        """Create a fixture.

        Keeps a verified incident bundle, or some of its records, as a regression test of its pipeline. The capture
        is replayed once: it is refused if it cannot be replayed, or if the replay needs more than a hundredth of a
        replay's work limit. Fails with `fixture_limit` if the pipeline has 1,000 fixtures that have not expired.

        Requires the permission `environment:operate`.

        Args:
            artifact_id: The id of a verified incident bundle.
            name: The name of the fixture, unique in its pipeline.
            pipeline: The name of the pipeline to which the capture must belong. By default, the capture may
                belong to any pipeline.
            owner: The id of the person who is responsible for the fixture. A new owner must have access to the
                project. Defaults to the caller, or to nobody if the caller is an organization key.
            note: Why the capture is kept.
            journal_lane: The ingress whose journal is replayed. By default, all journals are replayed together.
            last_n: The number of records to replay from the end of the input. Defaults to all records.
            records: The positions of the first and the last record to keep, counted from 0 in the order of a
                replay. The artifact of the fixture is then a reduced copy of the capture, with only these
                records, at most 10,000. Not accepted with `last_n` or a golden replay.
            expires_at: When the fixture expires. An expired fixture is not tested, and no longer protects its
                artifact from retention. By default, the fixture does not expire.
            expect: The expected result. `same`: the result of the configuration that the candidate is compared
                with. `golden`: the result of the replay with this id. The replay must have the same artifact,
                `journal_lane` and `last_n` as the fixture. Defaults to `same`.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Fixture = self._call(
            "POST",
            f"{self._path}/fixtures",
            "Fixture",
            fields={
                "artifact_id": artifact_id,
                "name": name,
                "pipeline": given(pipeline),
                "owner": given(owner),
                "note": given(note),
                "journal_lane": given(journal_lane),
                "last_n": given(last_n),
                "records": given(records),
                "expires_at": given(expires_at),
                "expect": given(expect),
            },
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_fixture(self, id: str) -> m.Fixture:
        """Get a fixture.

        Returns one fixture.

        Requires the permission `environment:view`.
        """
        found: m.Fixture = self._call("GET", f"{self._path}/fixtures/{quoted(id)}", "Fixture")
        return found

    def update_fixture(
        self,
        id: str,
        *,
        name: str | None = None,
        owner: str | Omitted | None = OMITTED,
        note: str | None = None,
        expires_at: datetime | Omitted | None = OMITTED,
        expect: str | m.Expect1 | None = None,
        if_match: str | None = None,
    ) -> m.Fixture:
        """Update a fixture.

        Changes the fields in the body and keeps the others. Changing `expect` or `expires_at` requires the
        permission `environment:manage`. Without this permission, returns 403. The records of a fixture cannot be
        changed.

        Requires the permission `environment:operate`.

        Args:
            name: The name of the fixture, unique in its pipeline.
            owner: The id of the person who is responsible for the fixture. A new owner must have access to the
                project. Null if the fixture has no owner.
            note: Why the capture is kept.
            expires_at: When the fixture expires. An expired fixture is not tested, and no longer protects its
                artifact from retention. Null if it does not expire.
            expect: The expected result. `same`: the result of the configuration that the candidate is compared
                with. `golden`: the result of the replay with this id. The replay must have the same artifact,
                `journal_lane` and `last_n` as the fixture.
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: m.Fixture = self._call(
            "PUT",
            f"{self._path}/fixtures/{quoted(id)}",
            "Fixture",
            fields={
                "name": given(name),
                "owner": owner,
                "note": given(note),
                "expires_at": expires_at,
                "expect": given(expect),
            },
            headers={"If-Match": given(if_match)},
        )
        return found

    def delete_fixture(self, id: str, *, if_match: str | None = None) -> None:
        """Delete a fixture.

        Deletes the fixture, but not its artifact. The fixture no longer protects the artifact from retention.

        Requires the permission `environment:manage`.

        Args:
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: None = self._call(
            "DELETE", f"{self._path}/fixtures/{quoted(id)}", "", headers={"If-Match": given(if_match)}
        )
        return found

    def list_fleet_state(
        self, *, at: str | None = None, cursor: str | None = None, limit: int | None = None
    ) -> Pages[m.RunningInterval]:
        """List what the fleet ran at a given time.

        Returns the bundle that each agent of the environment ran at the time `at`, with the bundle's deployment and
        approval. Decommissioned agents are included until they are deleted. For an agent that was offline or
        decommissioned at that time, returns the last bundle that the agent had reported. Agents that ran nothing
        are left out. Intervals are deleted 365 days after they end, so the list may be incomplete for an earlier
        time.

        Requires the permission `environment:view`.

        Args:
            at: The time, not in the future. Defaults to the current time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
        """
        found: Pages[m.RunningInterval] = self._pages(
            "GET",
            f"{self._path}/fleet-state",
            "PaginatedRunningIntervalList",
            query={"at": given(at), "cursor": given(cursor), "limit": given(limit)},
        )
        return found

    def get_held_offers(self) -> m.HeldOffers:
        """Get the held offers of an environment.

        Returns how many agents have an offer that has been held since the installation was restored from a backup.
        Agents with a held offer keep running what they run. An offer is held until the offers of the environment or
        of the deployment are resumed, or until the offer is replaced or withdrawn.

        Requires the permission `environment:view`.
        """
        found: m.HeldOffers = self._call("GET", f"{self._path}/held-offers", "HeldOffers")
        return found

    def resume_offers(self, *, reason: str | None = None, idempotency_key: str | None = None) -> m.HeldOffers:
        """Resume the offers of an environment.

        Lets the agents get the offers that have been held since the installation was restored from a backup. Agents
        that were moved to a newer bundle after the backup return to the bundle of the backup. Paused deployments
        stay paused. Returns 409 if no offers are held. In a `prod` environment, this requires the permission
        `environment:manage`.

        Requires the permission `environment:operate`.

        Args:
            reason: The reason, in your own words. It is stored in the audit trail.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.HeldOffers = self._call(
            "POST",
            f"{self._path}/held-offers/resume",
            "HeldOffers",
            fields={"reason": given(reason)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def list_regressions(
        self,
        *,
        config_bundle_id: str | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        pipeline: str | None = None,
        status: str | None = None,
        version_id: str | None = None,
    ) -> Pages[m.ListedRegression]:
        """List regressions.

        Returns the regressions of the environment, newest first, without their results and groups.

        Requires the permission `environment:view`.

        Args:
            config_bundle_id: Returns only regressions whose `config_bundle_id` is this value.
            created_after: Returns only regressions created at or after this time.
            created_before: Returns only regressions created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
            pipeline: Returns only regressions whose `pipeline` is this value.
            status: Returns only regressions whose `status` is this value.
            version_id: Returns only regressions whose `version_id` is this value.
        """
        found: Pages[m.ListedRegression] = self._pages(
            "GET",
            f"{self._path}/regressions",
            "PaginatedListedRegressionList",
            query={
                "config_bundle_id": given(config_bundle_id),
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "limit": given(limit),
                "pipeline": given(pipeline),
                "status": given(status),
                "version_id": given(version_id),
            },
        )
        return found

    def request_regression(
        self,
        *,
        config_bundle_id: str | None = None,
        version_id: str | None = None,
        draft_id: str | None = None,
        against: list[str] | None = None,
        idempotency_key: str | None = None,
    ) -> m.Regression:
        """Test a candidate.

        Replays the fixtures of a pipeline through a candidate and through the configurations in `against`, and
        compares the results. For a fixture with a golden result, the candidate's result is compared with the
        expected results instead. The candidate is a config bundle, a version or a draft: the body names exactly
        one. Verdicts that are known are not computed again. The regression runs in the background: its
        `finished_at` is null until it has finished. Returns 422 if the draft does not compile.

        Requires the permission `environment:operate`.

        Args:
            config_bundle_id: The id of the config bundle to test.
            version_id: The id of the version to test, instead of a config bundle. A stage of the version gets
                the parameters of the stage with the same id and op in the configuration that the version is
                compared with.
            draft_id: The id of the draft to test, instead of a config bundle. Its stages get their parameters
                in the same way as those of a version.
            against: The config hashes of at most 5 configurations to compare with. Each must have a config
                bundle of the same pipeline in this environment. By default, the candidate is compared with the
                configurations that the environment's agents run, at most the 5 with most agents.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Regression = self._call(
            "POST",
            f"{self._path}/regressions",
            "Regression",
            fields={
                "config_bundle_id": given(config_bundle_id),
                "version_id": given(version_id),
                "draft_id": given(draft_id),
                "against": given(against),
            },
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_regression(self, id: str, *, after: int | None = None, group: str | None = None) -> m.Regression:
        """Get a regression.

        Returns the regression with its results so far. After it has finished, the groups of differences are
        included. A response is limited to 4 MiB (see `truncated`). Callers without the permission
        `environment:operate` get the examples without payloads.

        Requires the permission `environment:view`.

        Args:
            after: Skips this number of results and returns the following ones, without groups.
            group: Returns only this group of differences, and only the results that show it.
        """
        found: m.Regression = self._call(
            "GET",
            f"{self._path}/regressions/{quoted(id)}",
            "Regression",
            query={"after": given(after), "group": given(group)},
        )
        return found

    def accept_differences(
        self, id: str, *, groups: list[str], reason: str, idempotency_key: str | None = None
    ) -> m.Acceptance:
        """Accept differences.

        States that groups of differences of a config bundle are wanted, for all compared configurations and golden
        results that show them in the regression. The acceptance is valid for all deployments of the configuration
        in this environment, until one of them becomes active. If deployments need approval, only a person can
        accept differences. An acceptance by the requester of a deployment then counts for that deployment only if
        `allow_self_approval` is true and the deployment does not use break-glass. If a deployment that needs
        approval has reviewers, only their acceptances count for it.

        Requires the permission `environment:operate`.

        Args:
            groups: The ids of the groups of differences to accept. They must be in this regression.
            reason: Why the differences are wanted.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Acceptance = self._call(
            "POST",
            f"{self._path}/regressions/{quoted(id)}/acceptances",
            "Acceptance",
            fields={"groups": groups, "reason": reason},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def cancel_regression(
        self, id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> m.Regression:
        """Cancel a regression.

        Cancels a queued or running regression. The verdicts that it has already stored are kept. Other regressions
        use them instead of computing them again.

        Requires the permission `environment:operate`.

        Args:
            reason: Why the regression is canceled.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Regression = self._call(
            "POST",
            f"{self._path}/regressions/{quoted(id)}/cancel",
            "Regression",
            fields={"reason": given(reason)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def list_replays(
        self,
        *,
        artifact_id: str | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        mode: str | None = None,
        status: str | None = None,
        version_id: str | None = None,
    ) -> Pages[m.ListedReplay]:
        """List replays.

        Returns the replays of the environment, newest first.

        Requires the permission `environment:view`.

        Args:
            artifact_id: Returns only replays whose `artifact_id` is this value.
            created_after: Returns only replays created at or after this time.
            created_before: Returns only replays created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
            mode: Returns only replays whose `mode` is this value.
            status: Returns only replays whose `status` is this value.
            version_id: Returns only replays whose `version_id` is this value.
        """
        found: Pages[m.ListedReplay] = self._pages(
            "GET",
            f"{self._path}/replays",
            "PaginatedListedReplayList",
            query={
                "artifact_id": given(artifact_id),
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "limit": given(limit),
                "mode": given(mode),
                "status": given(status),
                "version_id": given(version_id),
            },
        )
        return found

    def get_replay(self, id: str) -> m.Replay:
        """Get a replay.

        Returns the replay, with its result after it has finished.

        Requires the permission `environment:view`.
        """
        found: m.Replay = self._call("GET", f"{self._path}/replays/{quoted(id)}", "Replay")
        return found

    def cancel_replay(self, id: str, *, reason: str | None = None, idempotency_key: str | None = None) -> m.Replay:
        """Cancel a replay.

        Cancels a queued or running dry run. Its status becomes `failed`, with the error code `cancelled`.

        Requires the permission `environment:operate`.

        Args:
            reason: Why the replay is canceled.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Replay = self._call(
            "POST",
            f"{self._path}/replays/{quoted(id)}/cancel",
            "Replay",
            fields={"reason": given(reason)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def compare_replays(self, id: str, *, with_: str) -> m.Comparison:
        """Compare two replays.

        Returns the differences between the results of two replays of the same records. In each pair of values, the
        first belongs to the replay in the URL and the second to the replay in `with`. To keep the response below 4
        MiB, egresses and stages may be left out. Those that are equal in both replays are left out first.

        Requires the permission `environment:operate`.

        Args:
            with_: The id of the replay to compare with.
        """
        found: m.Comparison = self._call(
            "GET", f"{self._path}/replays/{quoted(id)}/compare", "Comparison", query={"with": with_}
        )
        return found

    def trace_record(self, id: str, *, sequence: int, after: int | None = None, ingress: str | None = None) -> m.Trace:
        """Trace a record of a replay.

        Returns the content of the record after each stage and lane, and its side effects. If the record was
        dropped, the trace contains the reason. A page is limited to 4 MiB; use `after` to get the next page. Each
        request recomputes the trace. If this takes longer than 10 seconds, the request fails with 503.

        Requires the permission `environment:operate`.

        Args:
            sequence: The sequence number of the record.
            after: Start after the step with this number.
            ingress: The ingress of the record. By default, records of all replayed ingresses are traced.
        """
        found: m.Trace = self._call(
            "GET",
            f"{self._path}/replays/{quoted(id)}/trace",
            "Trace",
            query={"after": given(after), "ingress": given(ingress), "sequence": sequence},
        )
        return found

    def get_environment_series(self, *, since: str | None = None, until: str | None = None) -> m.Series:
        """Get the series of an environment.

        Returns the sums of the series of all agents, including decommissioned agents, for each slot of 15 minutes,
        oldest first. Slots older than 90 days are deleted. In an environment with more than 1,000 of these agents,
        a slot is included only after five minutes have passed since its end, because its values must be summed
        first. In smaller environments, the current slot is included, up to the last heartbeats.

        Requires the permission `environment:view`.

        Args:
            since: The start of the time range, not in the future. The first point is the slot that contains
                this time, or the oldest kept slot if this time is earlier. Defaults to 24 hours before `until`.
            until: The end of the time range, after `since` and not in the future. Slots that start at or after
                this time are left out. Defaults to the current time.
        """
        found: m.Series = self._call(
            "GET", f"{self._path}/series", "Series", query={"since": given(since), "until": given(until)}
        )
        return found

    def list_versions(
        self,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        draft_id: str | None = None,
        limit: int | None = None,
        name: str | None = None,
        spec_hash: str | None = None,
    ) -> Pages[m.ListedVersion]:
        """List versions.

        Returns the environment's pipeline versions, newest first.

        Requires the permission `environment:view`.

        Args:
            created_after: Returns only versions created at or after this time.
            created_before: Returns only versions created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            draft_id: Returns only versions whose `draft_id` is this value.
            limit: The maximum number of rows per page.
            name: Returns only versions whose name contains this text.
            spec_hash: Returns only versions whose `spec_hash` is this value.
        """
        found: Pages[m.ListedVersion] = self._pages(
            "GET",
            f"{self._path}/versions",
            "PaginatedListedVersionList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "draft_id": given(draft_id),
                "limit": given(limit),
                "name": given(name),
                "spec_hash": given(spec_hash),
            },
        )
        return found

    def copy_version(self, *, from_version_id: str, idempotency_key: str | None = None) -> m.Version:
        """Copy a version from another environment.

        Copies a compiled version from another environment of the same project. If the pipeline's newest version in
        this environment is already a copy of that version, returns the existing copy (200). If the version belongs
        to this environment, returns it without copying it (200).

        Requires the permission `environment:operate`.

        Args:
            from_version_id: The id of the version to copy, from another environment of the same project.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Version = self._call(
            "POST",
            f"{self._path}/versions",
            "Version",
            fields={"from_version_id": from_version_id},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_version(self, id: str) -> m.Version:
        """Get a version.

        Returns the version with its plan and its compiled spec.

        Requires the permission `environment:view`.
        """
        found: m.Version = self._call("GET", f"{self._path}/versions/{quoted(id)}", "Version")
        return found

    def diff_versions(self, id: str, *, against: str) -> m.Diff:
        """Compare two versions.

        Returns the changes from another version to this one.

        Requires the permission `environment:view`.

        Args:
            against: The id of the version to compare with.
        """
        found: m.Diff = self._call(
            "GET", f"{self._path}/versions/{quoted(id)}/diff", "Diff", query={"against": against}
        )
        return found

    def draw_version(self, id: str) -> str:
        """Draw a version.

        Returns the compiled pipeline as an SVG drawing. Fails with 409 if the drawing would exceed 4 MiB. In that
        case, read the version's `spec.kv` instead.

        Requires the permission `environment:view`.
        """
        found: str = self._call("GET", f"{self._path}/versions/{quoted(id)}/graph.svg", "")
        return found

    def get_version_spec(self, id: str) -> str:
        """Get the canonical spec of a version.

        Returns the exact bytes whose SHA-256 is the spec hash, as text with one `key=value` per line.

        Requires the permission `environment:view`.
        """
        found: str = self._call("GET", f"{self._path}/versions/{quoted(id)}/spec.kv", "")
        return found


class Project(Calls):
    """The operations of a project."""

    def __init__(self, calls: Calls, org_id: str, project_id: str) -> None:
        super().__init__(calls)
        self._path = f"/api/v1/orgs/{quoted(org_id)}/projects/{quoted(project_id)}"

    def get_project(self) -> m.Project:
        """Get a project.

        Returns the project.

        Requires the permission `project:view`.
        """
        found: m.Project = self._call("GET", f"{self._path}", "Project")
        return found

    def update_project(
        self, *, name: str | None = None, slug: str | None = None, if_match: str | None = None
    ) -> m.Project:
        """Update a project.

        Changes the fields in the body and keeps all others.

        Requires the permission `project:manage`.

        Args:
            name: The project's name, unique in the organization.
            slug: A short name, unique in the organization. By default, it is derived from the name at creation,
                or random if the name has no usable characters.
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: m.Project = self._call(
            "PUT",
            f"{self._path}",
            "Project",
            fields={"name": given(name), "slug": given(slug)},
            headers={"If-Match": given(if_match)},
        )
        return found

    def delete_project(self, *, if_match: str | None = None) -> None:
        """Delete a project.

        Deletes the project and everything in it. The project disappears immediately for all callers, and the keys
        of its agents are rejected. The audit events are kept.

        Requires the permission `project:manage`.

        Args:
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: None = self._call("DELETE", f"{self._path}", "", headers={"If-Match": given(if_match)})
        return found

    def list_environments(
        self,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        name: str | None = None,
        posture: str | None = None,
    ) -> Pages[m.ListedEnvironment]:
        """List environments.

        Returns the project's environments, newest first.

        Requires the permission `project:view`.

        Args:
            created_after: Returns only environments created at or after this time.
            created_before: Returns only environments created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
            name: Returns only environments whose name contains this text.
            posture: Returns only environments whose `posture` is this value.
        """
        found: Pages[m.ListedEnvironment] = self._pages(
            "GET",
            f"{self._path}/environments",
            "PaginatedListedEnvironmentList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "limit": given(limit),
                "name": given(name),
                "posture": given(posture),
            },
        )
        return found

    def create_environment(
        self,
        *,
        name: str,
        posture: str,
        settings: m.EnvironmentSettingsRequest | None = None,
        position: int | None = None,
        idempotency_key: str | None = None,
    ) -> m.Environment:
        """Create an environment.

        Creates an environment. A setting that is not in the body gets the value in the organization's
        `default_environment_settings` or, if there is none, the posture's default. The posture cannot be changed
        later. In `staging` and `prod`, approval, replay, replay gate or freeze rules looser than these defaults
        require `org_admin`.

        Requires the permission `project:manage`.

        Args:
            name: The environment's name, unique in the project.
            posture: How strict the environment's default settings are. The posture cannot be changed after
                creation.
            settings: The environment's settings. An update changes only the keys that it contains.
            position: The environment's place in the order of the project's environments, counted from 1. By
                default, a new environment is the last one. When an environment is moved, the positions of the
                environments between its old and its new position change by 1. When an environment is inserted
                or deleted, the positions of the following ones increase or decrease by 1. A position that is
                greater than the number of environments is refused with 400. A new environment counts in this
                number.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Environment = self._call(
            "POST",
            f"{self._path}/environments",
            "Environment",
            fields={"name": name, "posture": posture, "settings": given(settings), "position": given(position)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_matrix(self, *, after: str | None = None) -> m.Matrix:
        """Get the matrix of a project.

        Returns, for each pipeline and each environment of the project, what runs, on how many agents, whether it
        differs from what runs in the previous environment, and what is under way.

        Requires the permission `project:view`.

        Args:
            after: Returns only pipelines whose names follow this name. Send `next_after` of the previous
                response.
        """
        found: m.Matrix = self._call("GET", f"{self._path}/matrix", "Matrix", query={"after": given(after)})
        return found

    def list_project_members(
        self, *, cursor: str | None = None, email: str | None = None, limit: int | None = None, role: str | None = None
    ) -> Pages[m.Member]:
        """List members of a project.

        Returns the people with a role in this project. In the project, this role overrides the person's role in the
        organization. The exception is an `org_admin` of the organization, who has all permissions.

        Requires the permission `project:view`.

        Args:
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            email: Returns only project members whose e-mail address contains this text.
            limit: The maximum number of rows per page.
            role: Returns only project members whose `role` is this value.
        """
        found: Pages[m.Member] = self._pages(
            "GET",
            f"{self._path}/members",
            "PaginatedMemberList",
            query={"cursor": given(cursor), "email": given(email), "limit": given(limit), "role": given(role)},
        )
        return found

    def add_project_member(self, *, email: str, role: str, idempotency_key: str | None = None) -> m.InvitedMember:
        """Add a member to a project.

        Grants the person with this e-mail address a role in this project only, and sends an invitation, as when
        adding a member to the organization.

        Requires the permission `project:manage`.

        Args:
            email: The person's e-mail address. In responses, empty if it is unknown.
            role: The person's role. `org_admin` can only be granted in an organization, not in a project.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.InvitedMember = self._call(
            "POST",
            f"{self._path}/members",
            "InvitedMember",
            fields={"email": email, "role": role},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def update_project_member(
        self, user_id: str, *, email: str | None = None, role: str | None = None, if_match: str | None = None
    ) -> m.Member:
        """Change a member's role in a project.

        Replaces the person's role in this project.

        Requires the permission `project:manage`.

        Args:
            email: The person's e-mail address. In responses, empty if it is unknown.
            role: The person's role. `org_admin` can only be granted in an organization, not in a project.
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: m.Member = self._call(
            "PUT",
            f"{self._path}/members/{quoted(user_id)}",
            "Member",
            fields={"email": given(email), "role": given(role)},
            headers={"If-Match": given(if_match)},
        )
        return found

    def remove_project_member(self, user_id: str, *, if_match: str | None = None) -> None:
        """Remove a member from a project.

        Removes the person's role in this project. If the person has a role in the organization, that role applies
        again.

        Requires the permission `project:manage`.

        Args:
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: None = self._call(
            "DELETE", f"{self._path}/members/{quoted(user_id)}", "", headers={"If-Match": given(if_match)}
        )
        return found

    def invite_project_member(self, user_id: str, *, idempotency_key: str | None = None) -> m.InvitedMember:
        """Invite a member of a project again.

        Sends another invitation to a member of the project, under the same conditions as for a member of the
        organization. The response contains a link only if the caller is an `org_admin`.

        Requires the permission `project:manage`.

        Args:
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.InvitedMember = self._call(
            "POST",
            f"{self._path}/members/{quoted(user_id)}/invite",
            "InvitedMember",
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found


class Organization(Calls):
    """The operations of an organization."""

    def __init__(self, calls: Calls, org_id: str) -> None:
        super().__init__(calls)
        self._path = f"/api/v1/orgs/{quoted(org_id)}"

    def get_organization(self) -> m.Organization:
        """Get an organization.

        Returns the organization with all its settings, including defaults.

        Requires the permission `organization:view`.
        """
        found: m.Organization = self._call("GET", f"{self._path}", "Organization")
        return found

    def update_organization(
        self,
        *,
        name: str | None = None,
        slug: str | None = None,
        settings: m.OrganizationSettingsRequest | None = None,
        if_match: str | None = None,
    ) -> m.Organization:
        """Update an organization.

        Changes the fields in the body and keeps all others. The same applies to the keys of `settings`.

        Requires the permission `organization:manage`.

        Args:
            name: The organization's name, unique in the installation.
            slug: A short name, unique in the installation, for example for commands. By default, it is derived
                from the name at creation, or random if the name has no usable characters.
            settings: The organization's settings. An update changes only the keys that it contains.
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: m.Organization = self._call(
            "PUT",
            f"{self._path}",
            "Organization",
            fields={"name": given(name), "slug": given(slug), "settings": given(settings)},
            headers={"If-Match": given(if_match)},
        )
        return found

    def list_organization_keys(
        self,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        name: str | None = None,
    ) -> Pages[m.OrganizationKey]:
        """List organization API keys.

        Returns the organization's API keys, newest first, including keys that expired or were revoked in the last
        90 days. Secrets are never returned again.

        Requires the permission `organization:manage`.

        Args:
            created_after: Returns only organization keys created at or after this time.
            created_before: Returns only organization keys created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
            name: Returns only organization keys whose name contains this text.
        """
        found: Pages[m.OrganizationKey] = self._pages(
            "GET",
            f"{self._path}/api-keys",
            "PaginatedOrganizationKeyList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "limit": given(limit),
                "name": given(name),
            },
        )
        return found

    def create_organization_key(
        self,
        *,
        name: str,
        role: str,
        project_id: str | Omitted | None = OMITTED,
        expires_in_s: int | None = None,
        idempotency_key: str | None = None,
    ) -> m.OrganizationKeyWithSecret:
        """Create an organization API key.

        Creates a key for scripts, with a role in the organization or in one of its projects. Only this response
        contains the secret (`token`).

        Requires the permission `organization:manage`.

        Args:
            name: A name by which you recognize the key, unique among the organization's keys that are not
                revoked.
            role: The role of the key.
            project_id: The id of the only project in which the key has its role. Null if the role applies to
                the whole organization.
            expires_in_s: The number of seconds until the key expires. The maximum is the organization's
                `token_max_days`. Defaults to 30 days, or to the maximum if that is shorter.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.OrganizationKeyWithSecret = self._call(
            "POST",
            f"{self._path}/api-keys",
            "OrganizationKeyWithSecret",
            fields={"name": name, "role": role, "project_id": project_id, "expires_in_s": given(expires_in_s)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def revoke_organization_key(self, id: str) -> None:
        """Revoke an organization API key.

        Revokes the key. It is rejected within one second.

        Requires the permission `organization:manage`.
        """
        found: None = self._call("DELETE", f"{self._path}/api-keys/{quoted(id)}", "")
        return found

    def list_audit_events(
        self,
        *,
        action: str | None = None,
        actor_id: str | None = None,
        after: str | None = None,
        before: str | None = None,
        cursor: str | None = None,
        environment_id: str | None = None,
        limit: int | None = None,
        outcome: str | None = None,
        project_id: str | None = None,
        resource_id: str | None = None,
        resource_kind: str | None = None,
    ) -> Pages[m.AuditEvent]:
        """List audit events.

        Returns the state changes, denials and sign-ins of the organization, newest first. Events are append-only.

        Requires the permission `organization:manage`.

        Args:
            action: Returns only audit events whose `action` is this value.
            actor_id: Returns only events whose actor has this id.
            after: Returns only events at or after this time.
            before: Returns only events before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            environment_id: Returns only events of the environment with this id, or of resources that belong to
                it.
            limit: The maximum number of rows per page.
            outcome: Returns only audit events whose `outcome` is this value.
            project_id: Returns only events of the project with this id, or of resources that belong to it.
            resource_id: Returns only events whose resource has this id.
            resource_kind: Returns only events whose resource is of this kind.
        """
        found: Pages[m.AuditEvent] = self._pages(
            "GET",
            f"{self._path}/audit-events",
            "PaginatedAuditEventList",
            query={
                "action": given(action),
                "actor_id": given(actor_id),
                "after": given(after),
                "before": given(before),
                "cursor": given(cursor),
                "environment_id": given(environment_id),
                "limit": given(limit),
                "outcome": given(outcome),
                "project_id": given(project_id),
                "resource_id": given(resource_id),
                "resource_kind": given(resource_kind),
            },
        )
        return found

    def export_audit_events(self, *, after_seq: int | None = None) -> Download:
        """Export the ledger.

        Returns the sealed audit events as newline-delimited JSON, ordered by `seq`. The last line is a signed
        checkpoint; `byteor-verify ledger` checks the export offline.

        Requires the permission `organization:manage`.

        Args:
            after_seq: Returns only events after the one with this `seq`.
        """
        found: Download = self._download(
            "GET", f"{self._path}/audit-events/export", "", query={"after_seq": given(after_seq)}
        )
        return found

    def list_chat_webhooks(
        self,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        enabled: bool | None = None,
        environment_id: str | None = None,
        limit: int | None = None,
        project_id: str | None = None,
    ) -> Pages[m.ListedChatWebhook]:
        """List chat webhooks.

        Returns the chat webhooks that the caller manages, newest first, without their URLs. Organization admins
        manage all chat webhooks, and project admins those of their projects.

        Requires the permission `project:manage`.

        Args:
            created_after: Returns only chat webhooks created at or after this time.
            created_before: Returns only chat webhooks created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            enabled: If true, returns only enabled chat webhooks. If false, returns only disabled chat webhooks.
            environment_id: Returns only chat webhooks whose `environment_id` is this value.
            limit: The maximum number of rows per page.
            project_id: Returns only chat webhooks whose `project_id` is this value.
        """
        found: Pages[m.ListedChatWebhook] = self._pages(
            "GET",
            f"{self._path}/chat-webhooks",
            "PaginatedListedChatWebhookList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "enabled": given(enabled),
                "environment_id": given(environment_id),
                "limit": given(limit),
                "project_id": given(project_id),
            },
        )
        return found

    def create_chat_webhook(
        self,
        *,
        name: str,
        format: str,
        url: str,
        events: list[str],
        enabled: bool | None = None,
        project_id: str | Omitted | None = OMITTED,
        environment_id: str | Omitted | None = OMITTED,
        idempotency_key: str | None = None,
    ) -> m.ChatWebhook:
        """Create a chat webhook.

        Creates a chat webhook, which sends messages about events to an incoming webhook of a Slack or Mattermost
        server. The chat webhook receives the events of the whole organization, of a project, or of an environment.
        Only organization admins can create a chat webhook for the whole organization.

        Requires the permission `project:manage`.

        Args:
            name: The name of the chat webhook, for example the name of the channel.
            format: The kind of chat server, which determines the format of the messages.
            url: The URL of the chat server's incoming webhook. It contains a secret of that server, so it is
                stored encrypted and never returned. It must use HTTPS, unless the operator permits webhooks to
                private networks.
            events: The events about which messages are sent. `*` stands for all events. `webhook.failing` and
                `quota.near` are sent only to chat webhooks of the whole organization, and `key.expires` is not
                sent for user tokens.
            enabled: Whether the chat webhook receives messages.
            project_id: The id of the project to which the chat webhook is limited. Null if it is not limited to
                a project. Defaults to the project of `environment_id`. It cannot be changed after creation.
            environment_id: The id of the environment to which the chat webhook is limited. Null if it is not
                limited to an environment. It cannot be changed after creation.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.ChatWebhook = self._call(
            "POST",
            f"{self._path}/chat-webhooks",
            "ChatWebhook",
            fields={
                "name": name,
                "format": format,
                "url": url,
                "events": events,
                "enabled": given(enabled),
                "project_id": project_id,
                "environment_id": environment_id,
            },
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_chat_webhook(self, id: str) -> m.ChatWebhook:
        """Get a chat webhook.

        Returns the chat webhook without its URL.

        Requires the permission `project:manage`.
        """
        found: m.ChatWebhook = self._call("GET", f"{self._path}/chat-webhooks/{quoted(id)}", "ChatWebhook")
        return found

    def update_chat_webhook(
        self,
        id: str,
        *,
        name: str | None = None,
        format: str | None = None,
        url: str | None = None,
        events: list[str] | None = None,
        enabled: bool | None = None,
        project_id: str | Omitted | None = OMITTED,
        environment_id: str | Omitted | None = OMITTED,
        if_match: str | None = None,
    ) -> m.ChatWebhook:
        """Update a chat webhook.

        Changes the fields in the body and keeps all others. Enabling a disabled chat webhook resumes its
        deliveries.

        Requires the permission `project:manage`.

        Args:
            name: The name of the chat webhook, for example the name of the channel.
            format: The kind of chat server, which determines the format of the messages.
            url: The URL of the chat server's incoming webhook. It contains a secret of that server, so it is
                stored encrypted and never returned. It must use HTTPS, unless the operator permits webhooks to
                private networks.
            events: The events about which messages are sent. `*` stands for all events. `webhook.failing` and
                `quota.near` are sent only to chat webhooks of the whole organization, and `key.expires` is not
                sent for user tokens.
            enabled: Whether the chat webhook receives messages.
            project_id: The id of the project to which the chat webhook is limited. Null if it is not limited to
                a project. Defaults to the project of `environment_id`. It cannot be changed after creation.
            environment_id: The id of the environment to which the chat webhook is limited. Null if it is not
                limited to an environment. It cannot be changed after creation.
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: m.ChatWebhook = self._call(
            "PUT",
            f"{self._path}/chat-webhooks/{quoted(id)}",
            "ChatWebhook",
            fields={
                "name": given(name),
                "format": given(format),
                "url": given(url),
                "events": given(events),
                "enabled": given(enabled),
                "project_id": project_id,
                "environment_id": environment_id,
            },
            headers={"If-Match": given(if_match)},
        )
        return found

    def delete_chat_webhook(self, id: str, *, if_match: str | None = None) -> None:
        """Delete a chat webhook.

        Deletes the chat webhook and its delivery log. Pending messages are not sent.

        Requires the permission `project:manage`.

        Args:
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: None = self._call(
            "DELETE", f"{self._path}/chat-webhooks/{quoted(id)}", "", headers={"If-Match": given(if_match)}
        )
        return found

    def list_chat_deliveries(
        self,
        id: str,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        status: str | None = None,
    ) -> Pages[m.ChatDelivery]:
        """List deliveries of a chat webhook.

        Returns the deliveries of messages to this chat webhook with their latest attempts, newest first. Deliveries
        are kept for 30 days.

        Requires the permission `project:manage`.

        Args:
            created_after: Returns only chat deliveries created at or after this time.
            created_before: Returns only chat deliveries created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
            status: Returns only chat deliveries whose `status` is this value.
        """
        found: Pages[m.ChatDelivery] = self._pages(
            "GET",
            f"{self._path}/chat-webhooks/{quoted(id)}/deliveries",
            "PaginatedChatDeliveryList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "limit": given(limit),
                "status": given(status),
            },
        )
        return found

    def test_chat_webhook(self, id: str, *, idempotency_key: str | None = None) -> m.ChatDelivery:
        """Send a test message to a chat webhook.

        Sends the message in the background, and returns its delivery. The chat webhook's list of deliveries shows
        the result. Returns 409 if the chat webhook is disabled.

        Requires the permission `project:manage`.

        Args:
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.ChatDelivery = self._call(
            "POST",
            f"{self._path}/chat-webhooks/{quoted(id)}/test",
            "ChatDelivery",
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def list_organization_members(
        self, *, cursor: str | None = None, email: str | None = None, limit: int | None = None, role: str | None = None
    ) -> Pages[m.Member]:
        """List members of an organization.

        Returns the people with a role in the whole organization. They can have other roles in projects. The list is
        empty for callers who only have a role in a project.

        Requires the permission `organization:view`.

        Args:
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            email: Returns only organization members whose e-mail address contains this text.
            limit: The maximum number of rows per page.
            role: Returns only organization members whose `role` is this value.
        """
        found: Pages[m.Member] = self._pages(
            "GET",
            f"{self._path}/members",
            "PaginatedMemberList",
            query={"cursor": given(cursor), "email": given(email), "limit": given(limit), "role": given(role)},
        )
        return found

    def add_organization_member(self, *, email: str, role: str, idempotency_key: str | None = None) -> m.InvitedMember:
        """Add a member to an organization.

        Grants a role in the whole organization to the person with this e-mail address, and sends an invitation. A
        person who has never signed in, or whose address is not confirmed yet, gets an e-mail with a sign-in link.
        If no mail server is configured, the response can contain a link instead (`invitation_url`). The person can
        also sign in with the identity provider if it has verified this address.

        Requires the permission `organization:manage`.

        Args:
            email: The person's e-mail address. In responses, empty if it is unknown.
            role: The person's role. `org_admin` can only be granted in an organization, not in a project.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.InvitedMember = self._call(
            "POST",
            f"{self._path}/members",
            "InvitedMember",
            fields={"email": email, "role": role},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def update_organization_member(
        self, user_id: str, *, email: str | None = None, role: str | None = None, if_match: str | None = None
    ) -> m.Member:
        """Change a member's role in an organization.

        Changes the member's role. The role of the organization's last active `org_admin` cannot be changed.

        Requires the permission `organization:manage`.

        Args:
            email: The person's e-mail address. In responses, empty if it is unknown.
            role: The person's role. `org_admin` can only be granted in an organization, not in a project.
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: m.Member = self._call(
            "PUT",
            f"{self._path}/members/{quoted(user_id)}",
            "Member",
            fields={"email": given(email), "role": given(role)},
            headers={"If-Match": given(if_match)},
        )
        return found

    def remove_organization_member(self, user_id: str, *, if_match: str | None = None) -> None:
        """Remove a member from an organization.

        Removes the person's role in the organization. Roles in individual projects are kept. The last active
        `org_admin` cannot be removed.

        Requires the permission `organization:manage`.

        Args:
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: None = self._call(
            "DELETE", f"{self._path}/members/{quoted(user_id)}", "", headers={"If-Match": given(if_match)}
        )
        return found

    def invite_organization_member(self, user_id: str, *, idempotency_key: str | None = None) -> m.InvitedMember:
        """Invite a member of an organization again.

        Sends another invitation to a member who has never signed in, or whose address is not confirmed yet. If no
        mail server is configured, the response can contain a new link, as when adding a member. A link in the
        response makes earlier links invalid. Returns 409 for other members, for installation operators, if the
        account is not active, and if the person first signed in with a link of another organization. Returns 429
        within a minute of the last invitation.

        Requires the permission `organization:manage`.

        Args:
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.InvitedMember = self._call(
            "POST",
            f"{self._path}/members/{quoted(user_id)}/invite",
            "InvitedMember",
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def list_projects(
        self,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        name: str | None = None,
    ) -> Pages[m.Project]:
        """List projects.

        Returns the organization's projects, newest first. Includes only projects that the caller may see.

        Requires the permission `organization:view`.

        Args:
            created_after: Returns only projects created at or after this time.
            created_before: Returns only projects created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
            name: Returns only projects whose name contains this text.
        """
        found: Pages[m.Project] = self._pages(
            "GET",
            f"{self._path}/projects",
            "PaginatedProjectList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "limit": given(limit),
                "name": given(name),
            },
        )
        return found

    def create_project(self, *, name: str, slug: str | None = None, idempotency_key: str | None = None) -> m.Project:
        """Create a project.

        Creates a project in the organization.

        Requires the permission `organization:create_project`.

        Args:
            name: The project's name, unique in the organization.
            slug: A short name, unique in the organization. By default, it is derived from the name at creation,
                or random if the name has no usable characters.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Project = self._call(
            "POST",
            f"{self._path}/projects",
            "Project",
            fields={"name": name, "slug": given(slug)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def list_signing_keys(self, *, cursor: str | None = None, limit: int | None = None) -> Pages[m.SigningKey]:
        """List signing keys.

        Returns the organization's signing keys with their validity periods. Private keys are never returned, and
        are destroyed when a key is retired.

        Requires the permission `organization:view`.

        Args:
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
        """
        found: Pages[m.SigningKey] = self._pages(
            "GET",
            f"{self._path}/signing-keys",
            "PaginatedSigningKeyList",
            query={"cursor": given(cursor), "limit": given(limit)},
        )
        return found

    def retire_signing_key(self, kid: str, *, reason: str, idempotency_key: str | None = None) -> m.SigningKey:
        """Retire a signing key.

        Retires a `retiring` key immediately, or withdraws the `next` key. A signature that contains its time still
        verifies if it was made before the key was retired. Returns 409 for a key that is `active` or already
        `retired`.

        Requires the permission `organization:manage`.

        Args:
            reason: The reason, in your own words. It is stored in the audit trail.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.SigningKey = self._call(
            "POST",
            f"{self._path}/signing-keys/{quoted(kid)}/retire",
            "SigningKey",
            fields={"reason": reason},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def rotate_signing_key(
        self, *, activate_in_s: int | None = None, retire_in_s: int | None = None, idempotency_key: str | None = None
    ) -> m.SigningKey:
        """Rotate the signing key.

        Publishes a new key, which starts to sign after `activate_in_s` seconds. From then on, the previous key only
        verifies signatures. After another `retire_in_s` seconds it is retired, and only verifies signatures that
        contain a time before its retirement. Returns 409 if a `next` key already exists.

        Requires the permission `organization:manage`.

        Args:
            activate_in_s: The number of seconds until the new key signs. Defaults to the time that online
                agents need to fetch the key. In an emergency, use 0 to sign with the new key immediately.
            retire_in_s: The number of seconds after which the previous key is retired, counted from the time
                when the new key starts to sign. Defaults to one week.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.SigningKey = self._call(
            "POST",
            f"{self._path}/signing-keys/rotate",
            "SigningKey",
            fields={"activate_in_s": given(activate_in_s), "retire_in_s": given(retire_in_s)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_usage(self) -> m.Usage:
        """Get the quotas and usage of an organization.

        Returns the organization's quotas, its current usage, and its usage by month. A request that would exceed a
        quota fails with 409. The problem's `type` is then `urn:byteor:problem:quota.NAME`, and the problem contains
        the `limit` and the amount `used`. Quotas never limit reads, heartbeats, reports, rollbacks or deletions.

        Requires the permission `organization:view`.
        """
        found: m.Usage = self._call("GET", f"{self._path}/usage", "Usage")
        return found

    def list_webhooks(
        self,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        enabled: bool | None = None,
        limit: int | None = None,
    ) -> Pages[m.Webhook]:
        """List webhooks.

        Returns the organization's webhooks, newest first, without their secrets.

        Requires the permission `organization:manage`.

        Args:
            created_after: Returns only webhooks created at or after this time.
            created_before: Returns only webhooks created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            enabled: If true, returns only enabled webhooks. If false, returns only disabled webhooks.
            limit: The maximum number of rows per page.
        """
        found: Pages[m.Webhook] = self._pages(
            "GET",
            f"{self._path}/webhooks",
            "PaginatedWebhookList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "enabled": given(enabled),
                "limit": given(limit),
            },
        )
        return found

    def create_webhook(
        self,
        *,
        url: str,
        events: list[str],
        description: str | None = None,
        enabled: bool | None = None,
        project_id: str | Omitted | None = OMITTED,
        environment_id: str | Omitted | None = OMITTED,
        idempotency_key: str | None = None,
    ) -> m.WebhookWithSecret:
        """Create a webhook.

        Subscribes a URL to events of deployments, approvals and fixtures. Deliveries are signed as specified by
        Standard Webhooks. Only this response contains the secret (`token`).

        Requires the permission `organization:manage`.

        Args:
            url: The URL that receives the events. It must use HTTPS, unless the operator permits webhooks to
                private networks.
            events: The event types to send. A type that ends in `.*` stands for all events of that kind, and
                `*` for all events.
            description: The purpose of the webhook.
            enabled: Whether the webhook receives events.
            project_id: The id of the only project whose events are sent. Null if the webhook is not limited to
                a project.
            environment_id: The id of the only environment whose events are sent. Null if the webhook is not
                limited to an environment.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.WebhookWithSecret = self._call(
            "POST",
            f"{self._path}/webhooks",
            "WebhookWithSecret",
            fields={
                "url": url,
                "events": events,
                "description": given(description),
                "enabled": given(enabled),
                "project_id": project_id,
                "environment_id": environment_id,
            },
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_webhook(self, id: str) -> m.Webhook:
        """Get a webhook.

        Returns the webhook without its secret.

        Requires the permission `organization:manage`.
        """
        found: m.Webhook = self._call("GET", f"{self._path}/webhooks/{quoted(id)}", "Webhook")
        return found

    def update_webhook(
        self,
        id: str,
        *,
        url: str | None = None,
        events: list[str] | None = None,
        description: str | None = None,
        enabled: bool | None = None,
        project_id: str | Omitted | None = OMITTED,
        environment_id: str | Omitted | None = OMITTED,
        if_match: str | None = None,
    ) -> m.Webhook:
        """Update a webhook.

        Changes the fields in the body and keeps all others. Enabling a disabled webhook resumes its deliveries.

        Requires the permission `organization:manage`.

        Args:
            url: The URL that receives the events. It must use HTTPS, unless the operator permits webhooks to
                private networks.
            events: The event types to send. A type that ends in `.*` stands for all events of that kind, and
                `*` for all events.
            description: The purpose of the webhook.
            enabled: Whether the webhook receives events.
            project_id: The id of the only project whose events are sent. Null if the webhook is not limited to
                a project.
            environment_id: The id of the only environment whose events are sent. Null if the webhook is not
                limited to an environment.
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: m.Webhook = self._call(
            "PUT",
            f"{self._path}/webhooks/{quoted(id)}",
            "Webhook",
            fields={
                "url": given(url),
                "events": given(events),
                "description": given(description),
                "enabled": given(enabled),
                "project_id": project_id,
                "environment_id": environment_id,
            },
            headers={"If-Match": given(if_match)},
        )
        return found

    def delete_webhook(self, id: str, *, if_match: str | None = None) -> None:
        """Delete a webhook.

        Deletes the webhook and its delivery log. Pending deliveries are not sent.

        Requires the permission `organization:manage`.

        Args:
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: None = self._call(
            "DELETE", f"{self._path}/webhooks/{quoted(id)}", "", headers={"If-Match": given(if_match)}
        )
        return found

    def list_webhook_deliveries(
        self,
        id: str,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        event_id: str | None = None,
        limit: int | None = None,
        status: str | None = None,
        type: str | None = None,
    ) -> Pages[m.WebhookDelivery]:
        """List deliveries of a webhook.

        Returns the deliveries to this webhook, newest first, with the results of their latest attempts. Deliveries
        are kept for 30 days.

        Requires the permission `organization:manage`.

        Args:
            created_after: Returns only webhook deliveries created at or after this time.
            created_before: Returns only webhook deliveries created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            event_id: Returns only webhook deliveries whose `event_id` is this value.
            limit: The maximum number of rows per page.
            status: Returns only webhook deliveries whose `status` is this value.
            type: Returns only deliveries of events of this type.
        """
        found: Pages[m.WebhookDelivery] = self._pages(
            "GET",
            f"{self._path}/webhooks/{quoted(id)}/deliveries",
            "PaginatedWebhookDeliveryList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "event_id": given(event_id),
                "limit": given(limit),
                "status": given(status),
                "type": given(type),
            },
        )
        return found

    def redeliver_webhook_delivery(
        self, id: str, delivery_id: str, *, idempotency_key: str | None = None
    ) -> m.WebhookDelivery:
        """Repeat a delivery.

        Sends the event again in the background, with the same `webhook-id`, by which the receiver can recognize a
        duplicate. Returns 409 if the webhook is disabled.

        Requires the permission `organization:manage`.

        Args:
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.WebhookDelivery = self._call(
            "POST",
            f"{self._path}/webhooks/{quoted(id)}/deliveries/{quoted(delivery_id)}/redeliver",
            "WebhookDelivery",
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def rotate_webhook_secret(self, id: str, *, idempotency_key: str | None = None) -> m.WebhookWithSecret:
        """Rotate a webhook's secret.

        Returns a new secret. For 24 hours or until the next rotation, each delivery is signed with both the new and
        the previous secret, so that receivers can switch to the new secret without losing a delivery.

        Requires the permission `organization:manage`.

        Args:
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.WebhookWithSecret = self._call(
            "POST",
            f"{self._path}/webhooks/{quoted(id)}/rotate-secret",
            "WebhookWithSecret",
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def test_webhook(self, id: str, *, idempotency_key: str | None = None) -> m.WebhookDelivery:
        """Send a test event to a webhook.

        Sends an event of type `ping` to the webhook in the background. The result appears in the webhook's list of
        deliveries. Returns 409 if the webhook is disabled.

        Requires the permission `organization:manage`.

        Args:
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.WebhookDelivery = self._call(
            "POST",
            f"{self._path}/webhooks/{quoted(id)}/test",
            "WebhookDelivery",
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found


class OwnAgent(Calls):
    """The operations that an agent calls with its own key."""

    def __init__(self, calls: Calls, id: str) -> None:
        super().__init__(calls)
        self._path = f"/api/v1/agents/{quoted(id)}"

    def get_own_agent(self) -> m.Agent:
        """Get the agent's own record.

        Returns the agent whose key is used.
        """
        found: m.Agent = self._call("GET", f"{self._path}", "Agent")
        return found

    def upload_artifact(
        self,
        *,
        kind: str,
        captured_at: datetime,
        file: Upload,
        spec_hash: str | None = None,
        deployment_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        capture_id: str | None = None,
    ) -> m.Artifact:
        """Upload an artifact.

        Called by an agent to upload an incident bundle or another artifact. If the same content was uploaded before
        with the same kind, spec hash and deployment, returns the existing artifact (200). If the check of that
        artifact could not be completed (`check_failed` in `reasons`), the check is repeated. A new artifact that
        would exceed a quota of the organization is not stored: the error is `quota.stored_bytes`, or
        `quota.captures_per_day` if the daily number of incident bundles is reached. If the agent uploads a
        requested capture, `capture_id` names the request. The request then refers to the artifact. A request that
        has expired also refers to the artifact, but stays `expired`. If the request already refers to an artifact,
        the new artifact is stored, but the request does not change.

        Args:
            kind: The kind of the artifact.
            captured_at: When the data was captured.
            file: The content of the artifact. At most 64 MiB, unless the installation sets another limit.
            spec_hash: The spec hash of the pipeline that the agent ran.
            deployment_id: The id of the deployment that the agent ran.
            metadata: A JSON object with more information about the artifact, at most 64 KiB.
            capture_id: The id of the requested capture that this upload is for.
        """
        found: m.Artifact = self._call(
            "POST",
            f"{self._path}/artifacts",
            "Artifact",
            form={
                "kind": kind,
                "captured_at": captured_at,
                "file": file,
                "spec_hash": given(spec_hash),
                "deployment_id": given(deployment_id),
                "metadata": given(metadata),
                "capture_id": given(capture_id),
            },
        )
        return found

    def get_pending_capture(self) -> m.PendingCaptureAnswer:
        """Get the capture that is requested from the agent.

        Called by an agent with its own key when the response to a heartbeat contains the command `capture`. Returns
        the oldest request that is neither uploaded nor expired. Capture the running pipeline, with at most the last
        `last_n` records of each journal. Upload the capture with `uploadArtifact`, with the request's `id` as
        `capture_id` and the reason in `metadata`. If there is nothing to capture, upload a `diagnostic` that says
        why. Call this operation before each attempt, because it stops returning a request once an upload for it is
        stored.
        """
        found: m.PendingCaptureAnswer = self._call("GET", f"{self._path}/capture", "PendingCaptureAnswer")
        return found

    def get_agent_deployment(self, *, wait_s: int | None = None) -> m.DesiredAnswer:
        """Get the agent's current offer.

        Called by an agent. Returns what the agent should run, with the signed envelope of the deploy bundle.

        Args:
            wait_s: The maximum number of seconds to wait for a new offer if `If-None-Match` matches the current
                one. Returns the new offer when there is one. Returns 304 if there is no new offer within this
                time, or if the server shuts down. May also return 304 if the agent sends another poll. If too
                many agents are waiting, returns 304 with `Retry-After` immediately. Defaults to 0.
        """
        found: m.DesiredAnswer = self._call(
            "GET", f"{self._path}/deployment", "DesiredAnswer", query={"wait_s": given(wait_s)}
        )
        return found

    def report_deployment(
        self,
        *,
        deployment_id: str,
        status: str,
        bundle_hash: str,
        detail: str | None = None,
        tuning: m.AgentTuningRequest | None = None,
        boot_id: str | Omitted | None = OMITTED,
        idempotency_key: str | None = None,
    ) -> m.ReportAnswer:
        """Report progress on an offer.

        Called by an agent while it downloads and activates the offered bundle, and when it has finished or failed.
        A report on an offer that is not current, or with a status that cannot follow the agent's progress, is
        recorded but returns 409. The repetition of an accepted report on the current offer is ignored and returns
        200.

        Args:
            deployment_id: The `deployment_id` of the offer.
            status: The agent's progress with the offer.
            bundle_hash: The `bundle_hash` of the offer.
            detail: More about the progress, such as the reason for a failure.
            tuning: How much of the tuning profile the agent could apply.
            boot_id: The id of the agent's process, new at each start. The control plane uses it to detect that
                two machines use the same key. Null if unknown.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.ReportAnswer = self._call(
            "POST",
            f"{self._path}/deployment",
            "ReportAnswer",
            fields={
                "deployment_id": deployment_id,
                "status": status,
                "bundle_hash": bundle_hash,
                "detail": given(detail),
                "tuning": given(tuning),
                "boot_id": boot_id,
            },
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def download_attestation(self, *, sha256: str) -> dict[str, Any]:
        """Download a signed statement.

        Called by an agent. Returns the DSSE envelope of one of the offer's `attestations`. Returns 409 if the
        agent's current offer has no statement with this hash.

        Args:
            sha256: The `sha256` of a statement of the offer.
        """
        found: dict[str, Any] = self._call(
            "GET", f"{self._path}/deployment/attestation", "json", query={"sha256": sha256}
        )
        return found

    def download_deploy_bundle(self, *, hash: str) -> Download:
        """Download the deploy bundle.

        Called by an agent. Returns the tar whose digest is in the signed envelope. Returns 409 if this is not the
        bundle of the agent's current offer.

        Args:
            hash: The `bundle_hash` of the offer.
        """
        found: Download = self._download("GET", f"{self._path}/deployment/bundle", "", query={"hash": hash})
        return found

    def send_heartbeat(
        self,
        *,
        status: str,
        agent_version: str,
        runtime_version: str | Omitted | None = OMITTED,
        uptime_s: float | Omitted | None = OMITTED,
        boot_id: str | Omitted | None = OMITTED,
        active: m.ActiveRequest | Omitted | None = OMITTED,
        tuning: dict[str, Any] | Omitted | None = OMITTED,
        resources: dict[str, Any] | Omitted | None = OMITTED,
        pipeline: dict[str, Any] | Omitted | None = OMITTED,
    ) -> m.HeartbeatAnswer:
        """Send a heartbeat.

        Called by an agent with its own key. Stores the agent's status, and returns the bundle that the agent should
        run and commands for the agent. A 200 means that the heartbeat is stored durably.

        Args:
            status: The agent's health.
            agent_version: The version of the agent program.
            runtime_version: The version of the pipeline runtime. Null if unknown.
            uptime_s: The seconds since the agent started. Null if unknown.
            boot_id: The id of the agent's process, new at each start. It reveals when two machines use the same
                key. Null if unknown.
            active: The bundle that the agent runs. Null if it runs none.
            tuning: The tuning profile, and which of its settings the agent could apply. Null if there is no
                profile.
            resources: The agent's resource usage, such as `cpu_percent` and `memory_bytes` of its process, and
                `disk_free_bytes`. The series contain `cpu_percent` and `memory_bytes`. Null if unknown.
            pipeline: The pipeline's counters: `records_in`, `records_out`, `drops` and `errors`, integers that
                count from the start of the pipeline. The series contain their increases. Null if no pipeline is
                running.
        """
        found: m.HeartbeatAnswer = self._call(
            "POST",
            f"{self._path}/heartbeat",
            "HeartbeatAnswer",
            fields={
                "status": status,
                "agent_version": agent_version,
                "runtime_version": runtime_version,
                "uptime_s": uptime_s,
                "boot_id": boot_id,
                "active": active,
                "tuning": tuning,
                "resources": resources,
                "pipeline": pipeline,
            },
        )
        return found

    def rotate_own_key(self, *, idempotency_key: str | None = None) -> m.RotatedKey:
        """Fetch a new agent key.

        Called by an agent with its own key, at any time or when the response to a heartbeat contains the command
        `rotate_key`. Returns a new key with the same scopes. The key used for this call stays valid until the new
        key is first used, for at most 24 hours. So store the new key before you use it. If you call this operation
        again before the first use, you get another new key, and the unused key is revoked. An agent may fetch three
        keys per hour; further calls return 429. When a person or an organization API key requests a rotation
        (`mode: by_agent`), the count starts again. While a clone of the agent is suspected, returns 409: keep the
        current key and do not retry. A person must then rotate the key with `rotateAgentKey` and `mode: now`, or
        enroll the agent again.

        Args:
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.RotatedKey = self._call(
            "POST", f"{self._path}/rotate-key", "RotatedKey", headers={"Idempotency-Key": given(idempotency_key)}
        )
        return found

    def get_signing_keys(self) -> m.KeySet:
        """Get the published signing keys.

        Called by an agent with its own key. Returns the public keys that verify deploy bundles, as a JSON Web Key
        Set with validity times.
        """
        found: m.KeySet = self._call("GET", f"{self._path}/signing-key", "KeySet")
        return found


class Installation(Calls):
    """The operations outside of organizations."""

    def get_caller(self) -> m.Me:
        """Get the caller.

        Returns the person to whom the credential belongs (null for an organization API key), the credential without
        its secret, and the roles of the credential. Use this operation to test a user token or an organization API
        key.
        """
        found: m.Me = self._call("GET", f"{self._path}/api/v1/me", "Me")
        return found

    def get_notification_settings(self) -> m.NotificationSettings:
        """Get your notification settings.

        Returns the caller's own choices and the built-in defaults.
        """
        found: m.NotificationSettings = self._call(
            "GET", f"{self._path}/api/v1/me/notification-settings", "NotificationSettings"
        )
        return found

    def update_notification_settings(
        self, *, settings: m.Settings, if_match: str | None = None
    ) -> m.NotificationSettings:
        """Update your notification settings.

        Replaces the caller's choices for the events in the body, and keeps the choices for all other events.

        Args:
            settings: The caller's choices: for each event, an object that maps ids of environments to `off`,
                `now` or `daily`. The key `*` stands for all other environments and for events outside
                environments. An update replaces the choices for the events in the body, and keeps all others.
                An empty object removes the choices for an event.
            if_match: The ETag that you last read. If the resource was edited since, the request is refused with
                412.
        """
        found: m.NotificationSettings = self._call(
            "PUT",
            f"{self._path}/api/v1/me/notification-settings",
            "NotificationSettings",
            fields={"settings": settings},
            headers={"If-Match": given(if_match)},
        )
        return found

    def list_notifications(
        self,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        event: str | None = None,
        limit: int | None = None,
        unread: bool | None = None,
    ) -> Pages[m.Notification]:
        """List your notifications.

        Returns the caller's notifications, newest first. The newest 200 are kept, for up to 30 days. Notifications
        about resources that the caller can no longer see are not returned.

        Args:
            created_after: Returns only notifications created at or after this time.
            created_before: Returns only notifications created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            event: Returns only notifications whose `event` is this value.
            limit: The maximum number of rows per page.
            unread: If true, returns only unread notifications. If false, returns only read notifications.
        """
        found: Pages[m.Notification] = self._pages(
            "GET",
            f"{self._path}/api/v1/me/notifications",
            "PaginatedNotificationList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "event": given(event),
                "limit": given(limit),
                "unread": given(unread),
            },
        )
        return found

    def mark_notifications(self, *, read: bool | None = None, ids: list[str] | None = None) -> m.MarkedNotifications:
        """Mark your notifications as read or unread.

        Marks the notifications with the ids in the body, or all of the caller's notifications if the body does not
        contain `ids`. Other people's notifications and unknown ids are ignored.

        Args:
            read: Whether to mark the notifications as read (true) or unread (false).
            ids: The ids of the notifications to mark. If omitted, all of the caller's notifications are marked.
        """
        found: m.MarkedNotifications = self._call(
            "PATCH",
            f"{self._path}/api/v1/me/notifications",
            "MarkedNotifications",
            fields={"read": given(read), "ids": given(ids)},
        )
        return found

    def list_organizations(
        self,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        name: str | None = None,
    ) -> Pages[m.ListedOrganization]:
        """List organizations.

        Returns the organizations in which the caller has a role, newest first.

        Args:
            created_after: Returns only organizations created at or after this time.
            created_before: Returns only organizations created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
            name: Returns only organizations whose name contains this text.
        """
        found: Pages[m.ListedOrganization] = self._pages(
            "GET",
            f"{self._path}/api/v1/orgs",
            "PaginatedListedOrganizationList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "limit": given(limit),
                "name": given(name),
            },
        )
        return found

    def create_organization(
        self,
        *,
        name: str,
        slug: str | None = None,
        settings: m.OrganizationSettingsRequest | None = None,
        idempotency_key: str | None = None,
    ) -> m.Organization:
        """Create an organization.

        Creates an organization. The caller becomes its first `org_admin`. Requires a user token.

        Args:
            name: The organization's name, unique in the installation.
            slug: A short name, unique in the installation, for example for commands. By default, it is derived
                from the name at creation, or random if the name has no usable characters.
            settings: The organization's settings. An update changes only the keys that it contains.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.Organization = self._call(
            "POST",
            f"{self._path}/api/v1/orgs",
            "Organization",
            fields={"name": name, "slug": given(slug), "settings": given(settings)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def get_plan_schema(self) -> dict[str, Any]:
        """Get the JSON Schema of a plan.

        Returns a JSON Schema (2020-12) that editors can use to complete and validate plans. It changes only with a
        release of this service.
        """
        found: dict[str, Any] = self._call("GET", f"{self._path}/api/v1/plan-schema", "json")
        return found

    def list_user_tokens(
        self,
        *,
        created_after: str | None = None,
        created_before: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        name: str | None = None,
    ) -> Pages[m.UserToken]:
        """List your user tokens.

        Returns the caller's own user tokens, newest first, including tokens that expired or were revoked in the
        last 90 days. Secrets are never returned again.

        Args:
            created_after: Returns only user tokens created at or after this time.
            created_before: Returns only user tokens created before this time.
            cursor: The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or
                `previous` URL.
            limit: The maximum number of rows per page.
            name: Returns only user tokens whose name contains this text.
        """
        found: Pages[m.UserToken] = self._pages(
            "GET",
            f"{self._path}/api/v1/tokens",
            "PaginatedUserTokenList",
            query={
                "created_after": given(created_after),
                "created_before": given(created_before),
                "cursor": given(cursor),
                "limit": given(limit),
                "name": given(name),
            },
        )
        return found

    def create_user_token(
        self, *, name: str, expires_in_s: int | None = None, idempotency_key: str | None = None
    ) -> m.UserTokenWithSecret:
        """Create a user token.

        Creates a token with all of the caller's roles. Only this response contains the secret (`token`).

        Args:
            name: A name by which you recognize the token.
            expires_in_s: The number of seconds until the token expires. The maximum is the lowest
                `token_max_days` of the person's organizations, or 90 days if the person is in no organization.
                Defaults to 30 days, or to the maximum if that is shorter.
            idempotency_key: A unique key that you generate. If you retry the request with the same key and body
                within 24 hours, the first 2xx response is returned again. A response with a secret is returned
                again only within 10 minutes.
        """
        found: m.UserTokenWithSecret = self._call(
            "POST",
            f"{self._path}/api/v1/tokens",
            "UserTokenWithSecret",
            fields={"name": name, "expires_in_s": given(expires_in_s)},
            headers={"Idempotency-Key": given(idempotency_key)},
        )
        return found

    def revoke_user_token(self, id: str) -> None:
        """Revoke a user token.

        Revokes the token. It is rejected within one second.
        """
        found: None = self._call("DELETE", f"{self._path}/api/v1/tokens/{quoted(id)}", "")
        return found

    def finish_sign_in(self, *, code: str | None = None, state: str | None = None) -> m.SignedIn:
        """Finish signing in.

        The identity provider redirects here with an authorization code. Browsers get a session of the console.
        Other clients get a user token.

        Args:
            code: The authorization code from the identity provider.
            state: The state with which the sign-in started.
        """
        found: m.SignedIn = self._call(
            "GET", f"{self._path}/auth/callback", "SignedIn", query={"code": given(code), "state": given(state)}
        )
        return found

    def start_device_sign_in(self, *, client_name: str | None = None) -> m.DeviceSignInCodes:
        """Start signing in on a machine without a browser.

        Returns a code to show to the person, and the URL of the page on which the person enters the code and allows
        or denies the sign-in. Meanwhile, request the token every `interval` seconds (RFC 8628). The body of this
        request, and of the request for the token, can also be a form, as in the RFC.

        Args:
            client_name: The name of the machine. The person who allows the sign-in sees it.
        """
        found: m.DeviceSignInCodes = self._call(
            "POST", f"{self._path}/auth/device", "DeviceSignInCodes", fields={"client_name": given(client_name)}
        )
        return found

    def finish_device_sign_in(self, *, grant_type: str, device_code: str) -> m.DeviceToken:
        """Finish signing in on a machine without a browser.

        Returns the user token once, after a person has allowed the sign-in. While the decision is pending, returns
        400 with the error `authorization_pending`, or `slow_down` if requests come too often. After `slow_down`,
        wait 5 seconds longer between requests.

        Args:
            grant_type: Always `urn:ietf:params:oauth:grant-type:device_code`.
            device_code: The device code of the sign-in.
        """
        found: m.DeviceToken = self._call(
            "POST",
            f"{self._path}/auth/device/token",
            "DeviceToken",
            fields={"grant_type": grant_type, "device_code": device_code},
        )
        return found

    def start_sign_in(self, *, next: str | None = None) -> None:
        """Start signing in.

        Redirects to the identity provider (OpenID Connect). Returns 503 if no provider is configured, or if the
        provider is configured incorrectly, does not respond, or returns an error.

        Args:
            next: The path that the browser is redirected to after the sign-in.
        """
        found: None = self._call("GET", f"{self._path}/auth/login", "", query={"next": given(next)})
        return found

    def check_liveness(self) -> m.Health:
        """Check that the process is alive.

        Returns 200 while the process serves requests. This check uses neither the database nor the storage. Use it
        for liveness probes.
        """
        found: m.Health = self._call("GET", f"{self._path}/healthz", "Health")
        return found

    def scrape_metrics(self) -> str:
        """Scrape metrics.

        Returns the metrics of this server's API processes and of the installation in the Prometheus text format. No
        label contains the name of an organization or of a resource that belongs to one.
        """
        found: str = self._call("GET", f"{self._path}/metrics", "")
        return found

    def check_readiness(self) -> m.Ready:
        """Check that the service can handle requests.

        Checks the database, its migrations, the master key, the storage, temporary files and the disk space.
        Returns 503 with the names of the checks that failed. Use it for readiness probes and load balancers.
        """
        found: m.Ready = self._call("GET", f"{self._path}/readyz", "Ready")
        return found
