"""Audit events as sentences, such as "ada@acme.example approved the deployment of quotes v7 to prod"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any, Final

from django.db.models import Case, CharField, F, Func, Model, OuterRef, QuerySet, Subquery, UUIDField, When
from django.db.models.functions import Cast, Coalesce, Concat, Replace
from django.utils.html import format_html, strip_tags

from apps.artifacts.models import Artifact, Bisect, Fixture, Replay, RequestedCapture
from apps.console.frame.columns import SERVICE, page_url, state_pill, text_link
from apps.console.frame.console_user import ConsoleUser
from apps.console.frame.site import site
from apps.fleet.models import Agent, AgentKey
from apps.notifications.models import ChatWebhook
from apps.pipelines.models import Draft, Version
from apps.releases.models import Approval, ConfigBundle, Deployment, Regression
from apps.tenancy.models import (
    AuditEvent,
    Environment,
    Organization,
    OrganizationKey,
    Project,
    Tenant,
    User,
    Webhook,
)

SUBJECT: Final = "subject"  # the annotations of ``with_subjects``
PLACE: Final = "place"

# What the actor did, by action. {} is replaced by the event's resource.
PHRASES: Final[Mapping[str, str]] = {
    "account.claim": "signed in to the account of {} with the identity provider for the first time",
    "account.create": "created the account of {}",
    "account.lose_address": "marked the address of {} as unconfirmed",
    "agent.clear_clone_suspicion": "cleared the suspicion that {} has a clone",
    "agent.decommission": "decommissioned {}",
    "agent.drain": "drained {}",
    "agent.enroll": "enrolled {}",
    "agent.label": "changed labels of agents in {}",
    "agent.request_key_rotation": "requested a new key for {}",
    "agent.supersede": "replaced {} with a new enrollment",
    "agent.undrain": "undrained {}",
    "agent.update": "changed {}",
    "agent_key.create": "created {}",
    "agent_key.revoke": "revoked {}",
    "api_key.create": "created {}",
    "api_key.revoke": "revoked {}",
    "approval.approve": "completed the approval of {}",
    "approval.decision.approve": "approved {}",
    "approval.decision.deny": "denied {}",
    "approval.deny": "closed the approval request for {} as denied",
    "approval.expire": "closed the approval request for {} as expired",
    "approval.remind": "sent a reminder about the approval of {}",
    "approval.request": "requested approval of {}",
    "approval.revoke": "revoked the approval of {}",
    "artifact.expire": "deleted expired artifacts of {}",
    "artifact.receive": "uploaded {}",
    "artifact.reduce": "saved part of a capture as {}",
    "artifact.reject": "rejected {}",
    "artifact.requeue": "scheduled another check of {}",
    "artifact.verify": "verified {}",
    "backup.create": "created {}",
    "backup.restore": "restored the installation from {}",
    "bisect.cancel": "canceled {}",
    "bisect.fail": "could not complete {}",
    "bisect.request": "requested {}",
    "bisect.start": "started {}",
    "bisect.succeed": "completed {}",
    "capture.expire": "closed the request for {} as expired",
    "capture.request": "requested {}",
    "capture.upload": "uploaded {}",
    "capture.upload_late": "uploaded {} after the request had expired",
    "chat_webhook.create": "created {}",
    "chat_webhook.delete": "deleted {}",
    "chat_webhook.disable": "disabled {}",
    "chat_webhook.test": "sent a test message to {}",
    "chat_webhook.update": "changed {}",
    "config.bar": "marked {} as known bad",
    "config.clear": "cleared the known-bad state of {}",
    "config_bundle.create": "created {}",
    "deployment.abort": "aborted {}",
    "deployment.activate": "completed {}",
    "deployment.approve": "cleared {} to start",
    "deployment.build": "started to build {}",
    "deployment.change_reviewers": "changed the reviewers of {}",
    "deployment.create": "requested {}",
    "deployment.deny": "closed {} as denied",
    "deployment.fail": "marked {} as failed",
    "deployment.hold": "held {} before its next wave",
    "deployment.next_wave": "started the next wave of {}",
    "deployment.offer": "started to offer {} to agents",
    "deployment.pause": "paused {}",
    "deployment.restore": "completed the rollback of {}",
    "deployment.resume": "resumed {}",
    "deployment.retry": "retried {}",
    "deployment.roll_back": "started to roll back {}",
    "device_sign_in.allow": "allowed a machine to sign in as {}",
    "device_sign_in.deny": "denied a machine's request to sign in",
    "draft.create": "created {}",
    "draft.delete": "deleted {}",
    "draft.update": "changed {}",
    "enrollment_token.create": "created {}",
    "enrollment_token.revoke": "revoked {}",
    "environment.create": "created {}",
    "environment.delete": "deleted {}",
    "environment.resume_offers": "resumed the offers in {}",
    "environment.update": "changed {}",
    "fixture.create": "created {}",
    "fixture.current_fails": "found that the current deployment did not pass {}",
    "fixture.delete": "deleted {}",
    "fixture.expect_accepted": "updated golden fixtures with the accepted results of {}",
    "fixture.expire": "deleted {}, which had expired",
    "fixture.update": "changed {}",
    "installation_operator.grant": "made {} an installation operator",
    "installation_operator.revoke": "revoked the installation operator role of {}",
    "job.retry": "retried {}",
    "master_key.rotate": "rotated {}",
    "master_key.store": "stored {}",
    "member.add": "gave {} a role",
    "member.invite": "sent another invitation to {}",
    "member.remove": "removed a role of {}",
    "member.update": "changed the role of {}",
    "notification_settings.update": "changed the notification settings of {}",
    "organization.create": "created {}",
    "organization.set_quotas": "changed the quotas of {}",
    "organization.update": "changed {}",
    "project.create": "created {}",
    "project.delete": "deleted {}",
    "project.update": "changed {}",
    "regression.accept": "accepted differences in {}",
    "regression.cancel": "canceled {}",
    "regression.differ": "found differences in {}",
    "regression.fail": "marked {} as failed",
    "regression.request": "requested {}",
    "regression.start": "started {}",
    "regression.succeed": "found no differences in {}",
    "replay.approve": "queued {} after its approval",
    "replay.deny": "closed {} as denied",
    "replay.diverge": "found that the output of {} diverges",
    "replay.fail": "marked {} as failed",
    "replay.request": "requested {}",
    "replay.start": "started {}",
    "replay.succeed": "completed {}",
    "session.sign_in": "signed in",
    "session.sign_out": "signed out",
    "sign_in_link.create": "created a sign-in link for {}",
    "signing_key.activate": "activated {}",
    "signing_key.create": "created {}",
    "signing_key.retire": "retired {}",
    "signing_key.supersede": "replaced {} with a newer key",
    "token.create": "created {}",
    "token.revoke": "revoked {}",
    "version.create": "created {}",
    "webhook.create": "created {}",
    "webhook.delete": "deleted {}",
    "webhook.disable": "disabled {}",
    "webhook.ping": "sent a test event to {}",
    "webhook.redeliver": "repeated a delivery of {}",
    "webhook.rotate_secret": "rotated the secret of {}",
    "webhook.update": "changed {}",
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of resource: the table of its rows, and the parts of the phrase that names a row."""

    model: type[Model]
    parts: tuple[Any, ...]


def _words(text: str) -> Any:
    """Return a constant that is part of the SQL, so that the query can be compiled once (``CompiledQuery``)."""
    return Func(template=f"'{text}'", output_field=CharField())


def _text(path: str) -> Any:
    return Cast(F(path), CharField())


def _deployment(path: str) -> tuple[Any, ...]:
    """Return the parts of the phrase for a deployment. ``path`` leads from the row to the deployment."""
    return (
        _words("the deployment of "), F(f"{path}pipeline"), _words(" v"),
        _text(f"{path}config_bundle__version__number"), _words(" to "), F(f"{path}environment__name"),
    )  # fmt: skip


_VERSION = (F("version__name"), _words(" v"), _text("version__number"))
# For kinds that are not listed, the sentence names only the kind.
_KINDS: Final[Mapping[str, _Kind]] = {
    "agent": _Kind(Agent, (_words("agent "), F("name"))),
    "agentkey": _Kind(AgentKey, (_words("a key of agent "), F("agent__name"))),
    "approval": _Kind(
        Approval,
        (
            Case(
                When(
                    rollout__isnull=False,
                    then=Concat(
                        _words("wave "), Cast(F("wave") + 1, CharField()), _words(" of "), *_deployment("rollout__")
                    ),
                ),
                When(deployment__isnull=False, then=Concat(*_deployment("deployment__"))),
                When(replay_id__isnull=False, then=Concat(_words("an execute replay in "), F("environment__name"))),
                default=_words("a deployment"),
            ),
        ),
    ),
    "artifact": _Kind(
        Artifact, (_words("the "), Replace("kind", _words("_"), _words(" ")), _words(" of agent "), F("agent__name"))
    ),
    "bisect": _Kind(Bisect, (_words("the bisect of an incident of agent "), F("artifact__agent__name"))),
    "capture": _Kind(RequestedCapture, (_words("a capture of agent "), F("agent__name"))),
    "chat_webhook": _Kind(ChatWebhook, (_words("the chat webhook "), F("name"))),
    "config_bundle": _Kind(ConfigBundle, (_words("the config bundle "), F("name"), _words(" of "), *_VERSION)),
    "deployment": _Kind(Deployment, _deployment("")),
    "draft": _Kind(Draft, (_words("the draft "), F("name"))),
    "environment": _Kind(Environment, (_words("the environment "), F("name"))),
    "fixture": _Kind(Fixture, (_words("the fixture "), F("name"), _words(" of "), F("pipeline"))),
    "member": _Kind(User, (F("email"),)),
    "organization": _Kind(Organization, (_words("the organization "), F("name"))),
    "organizationkey": _Kind(OrganizationKey, (_words("the API key "), F("name"))),
    "project": _Kind(Project, (_words("the project "), F("name"))),
    "regression": _Kind(Regression, (_words("the regression of "), F("pipeline"))),
    "replay": _Kind(
        Replay,
        (_words("the replay of an incident of agent "), F("artifact__agent__name"), _words(" through "), *_VERSION),
    ),
    "user": _Kind(User, (F("email"),)),
    "version": _Kind(Version, (_words("version "), F("name"), _words(" v"), _text("number"))),
    "webhook": _Kind(Webhook, (_words("the webhook to "), F("url"))),
}  # fmt: skip
# Sentences do not link to people, because members of an organization cannot open the page of a person who has left it.
_WITHOUT_LINK: Final = frozenset({"member", "user"})
# The nouns for kinds of resources and actions, unless the noun is the kind with spaces instead of underscores.
NOUNS: Final[Mapping[str, str]] = {
    "agentkey": "agent key",
    "api_key": "API key",
    "config": "configuration",
    "enrollmenttoken": "enrollment token",
    "organizationkey": "API key",
    "user": "person",
    "usertoken": "token",
}
# The kinds of resources in events.
RESOURCES: Final = frozenset(
    {*_KINDS, "backup", "config", "credential", "enrollmenttoken", "job", "master_key", "signing_key", "usertoken"}
)


def with_subjects(events: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
    """Annotate the phrase for each event's resource, and the names of the event's project and environment.

    The phrase is null if the resource's row no longer exists, or if ``_KINDS`` does not list the kind of resource.
    Without the row of the environment, only the project is named. Without that of the project, the name is null.
    """
    named = [When(resource_kind=kind, then=phrase_of(kind, OuterRef("resource_id"))) for kind in _KINDS]
    environment = Environment.objects.filter(pk=OuterRef("environment_id")).order_by()
    place = environment.values_list(Concat("project__name", _words(" / "), "name", output_field=CharField()))
    project = Project.objects.filter(pk=OuterRef("project_id")).order_by().values_list("name")
    return events.annotate(
        **{
            SUBJECT: Case(*named, default=None, output_field=CharField()),
            PLACE: Coalesce(Subquery(place[:1]), Subquery(project[:1])),
        }
    )


def phrase_of(kind_name: str, key: Any) -> Subquery:
    """Return the phrase for a row as an expression. ``key`` is an expression for the row's id as text."""
    kind = _KINDS[kind_name]
    # The id of these kinds is always a UUID. Ids of other kinds are not cast, because some, such as those of signing
    # keys, are not UUIDs.
    rows = kind.model._base_manager.filter(pk=Cast(key, UUIDField()))
    phrase = Concat(*kind.parts, output_field=CharField()) if len(kind.parts) > 1 else kind.parts[0]
    return Subquery(rows.order_by().values_list(Coalesce(phrase, _words(""), output_field=CharField()))[:1])


def describe_event(event: AuditEvent, console_user: ConsoleUser | None) -> str:
    """Return the event as a sentence. The phrase for its resource may be a link (``describe_subject``).

    If the event is not from ``with_subjects``, the sentence names only the kind of resource, such as "a webhook".
    """
    actor = SERVICE if event.actor_kind == "system" else event.actor_display
    words = event.action.replace(".", " ").replace("_", " ")
    if event.outcome == "denied":
        return format_html("{} was denied access: {}", actor, words)
    phrase = PHRASES.get(event.action)
    # An action of a later release has no phrase.
    sentence = format_html("{}: {}", actor, words) if phrase is None else _sentence(actor, phrase, event, console_user)
    return sentence if event.outcome == "success" else format_html("{} {}", sentence, state_pill(event.outcome))


def _sentence(actor: str, phrase: str, event: AuditEvent, console_user: ConsoleUser | None) -> str:
    if "{}" not in phrase:
        return format_html("{} {}", actor, phrase)
    before, _, after = phrase.partition("{}")
    return format_html("{} {}{}{}", actor, before, describe_subject(event, console_user), after)


def plain_sentence(event: AuditEvent) -> str:
    """Return the event as a sentence without markup."""
    return unescape(strip_tags(describe_event(event, None)))


def page_of(kind: str, key: str) -> str:
    """Return the URL of the page of a row of this kind."""
    return page_url(_KINDS[kind].model, "change", key)


def describe_subject(event: AuditEvent, console_user: ConsoleUser | None) -> str:
    """Return the phrase for the event's resource, as a link if the viewer may open it. People get no link."""
    kind, name = event.resource_kind, getattr(event, SUBJECT, None)
    if not name:
        noun = noun_of(kind)
        return f"the {noun}" if kind == "master_key" else f"{'an' if noun[:1] in {*'aeiouA'} else 'a'} {noun}"
    if kind in _WITHOUT_LINK or console_user is None or not _may_open(kind, event, console_user):
        return str(name)
    return text_link(page_of(kind, event.resource_id), name)


def noun_of(kind: str) -> str:
    """Return the noun for a kind of resource or of action."""
    return NOUNS.get(kind) or kind.replace("_", " ")


def resource_model(kind: str) -> type[Model] | None:
    """Return the table of a kind of resource; None if ``_KINDS`` does not list the kind."""
    return _KINDS[kind].model if kind in _KINDS else None


def _may_open(kind: str, event: AuditEvent, console_user: ConsoleUser) -> bool:
    """Return whether the person may open resources of this kind where the event happened."""
    place: Tenant = Organization(pk=event.organization_id)
    if event.project_id is not None and event.organization_id is not None:
        place = Project(pk=event.project_id, organization_id=event.organization_id)
    return site.get_model_admin(_KINDS[kind].model).needs in console_user.permissions(place)
