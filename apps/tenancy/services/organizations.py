"""Create and edit organizations, projects and environments. Delete projects and environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone
from django.utils.text import slugify

from apps.tenancy.actors import Actor
from apps.tenancy.jobs import PurgeEnvironment, PurgeProject
from apps.tenancy.models import Environment, Membership, Organization, Project, Receiver, User
from apps.tenancy.permissions import GRANTS, Permission, Role
from apps.tenancy.policy import Posture, ReplayPolicy, loosened_settings
from apps.tenancy.services import audit, members, signing_keys
from apps.tenancy.services.revisions import edit, lock_revision
from apps.tenancy.services.state import lock_row
from apps.tenancy.services.tokens import person_behind
from byteor.engine.replay_gate import GateMode
from byteor_cloud.errors import Forbidden, InvalidInput, NotFound
from byteor_cloud.ids import uuid7
from byteor_cloud.worker.jobs import enqueue

PURGED_AFTER_S = 60  # seconds from a deletion to the purge, so that requests that have read the row finish first


def _slug(name: str, given: str | None) -> str:
    """Return the given slug, or one derived from the name, or a random one if the name has no usable characters."""
    return given or slugify(name).replace("_", "-")[:63] or str(uuid7())[-12:]


@transaction.atomic
def create_organization(
    *,
    name: str,
    slug: str | None = None,
    settings: Mapping[str, Any] | None = None,
    owner: User,
    actor: Actor,
) -> Organization:
    """Create an organization with its first signing key; ``owner`` becomes its org_admin.

    Raises IntegrityError (409) if the name or slug is taken, and InvalidInput for default reviewers other than
    ``owner``.
    """
    organization = Organization.objects.create(name=name, slug=_slug(name, slug), settings=dict(settings or {}))
    audit.record(
        "organization.create",
        actor=actor,
        scope=organization,
        resource=("organization", organization.pk),
        changes={"name": [None, name]},
    )
    Membership.objects.create(user=owner, organization=organization, role=Role.ORG_ADMIN)
    audit.record(
        "member.add",
        actor=actor,
        scope=organization,
        resource=("member", owner.pk),
        changes={"role": [None, Role.ORG_ADMIN]},
    )
    signing_keys.create(organization=organization, actor=actor)
    _check_default_reviewers(organization, {})
    return organization


@transaction.atomic
def update_organization(
    organization: Organization,
    values: Mapping[str, Any],
    *,
    actor: Actor,
    expected_revision: int | None = None,
) -> Organization:
    """Edit name, slug or settings. Settings that are not in ``values`` keep their values.

    Raises InvalidInput for new default reviewers who are not active members, IntegrityError (409) if the name or slug
    is taken, and the errors of ``lock_revision``.
    """
    locked = lock_revision(organization, expected_revision)
    before = locked.settings_with_defaults
    edited = edit(locked, _merged(locked, values), kind="organization", scope=locked, actor=actor)
    _check_default_reviewers(edited, before)
    return edited


def _check_default_reviewers(organization: Organization, before: Mapping[str, Any]) -> None:
    """Raise InvalidInput for a new reviewer in the default settings who is not an active member."""
    named = organization.settings_with_defaults["default_environment_settings"].get("reviewers", [])
    known = before.get("default_environment_settings", {}).get("reviewers", [])
    if not (new := [user_id for user_id in named if user_id not in known]):
        return
    memberships = Membership.objects.filter(organization=organization, user__in=new, user__is_active=True)
    found = {str(user_id) for user_id in memberships.values_list("user_id", flat=True)}
    for number, user_id in enumerate(named):
        if user_id in new and user_id not in found:
            pointer = f"/settings/default_environment_settings/reviewers/{number}"
            detail = "This person is not an active member of the organization."
            raise InvalidInput.at(pointer, detail, code="does_not_exist")


def _merged(row: Organization | Environment, values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    if "settings" in merged:
        merged["settings"] = {**row.settings, **merged["settings"]}
    return merged


@transaction.atomic
def create_project(*, organization: Organization, name: str, slug: str | None = None, actor: Actor) -> Project:
    """Create a project. Raises IntegrityError (409) if the name or slug is taken."""
    project = Project.objects.create(organization=organization, name=name, slug=_slug(name, slug))
    audit.record(
        "project.create",
        actor=actor,
        scope=project,
        resource=("project", project.pk),
        changes={"name": [None, name]},
    )
    return project


def update_project(
    project: Project, values: Mapping[str, Any], *, actor: Actor, expected_revision: int | None = None
) -> Project:
    """Edit name or slug.

    Raises IntegrityError (409) if the name or slug is taken, and the errors of ``lock_revision``.
    """
    return edit(project, values, kind="project", scope=project, actor=actor, expected_revision=expected_revision)


def find_project(organization: Organization, project_id: UUID | None) -> Project | None:
    """Return the organization's project with this id, or None without an id. Raises InvalidInput for a wrong id."""
    if project_id is None:
        return None
    project: Project | None = Project.objects.live().filter(pk=project_id, organization=organization).first()
    if project is None:
        raise InvalidInput.at("/project_id", "This organization has no project with this id.", code="does_not_exist")
    return project


@transaction.atomic
def create_environment(
    *,
    project: Project,
    name: str,
    posture: str,
    settings: Mapping[str, Any] | None = None,
    position: int | None = None,
    may_loosen: bool,
    actor: Actor,
) -> Environment:
    """Create an environment with the organization's default settings, overridden by ``settings``.

    By default, the environment is the project's last. With ``position``, the positions of the environments from this
    position on increase by 1.

    Unless ``may_loosen`` or the posture is dev, raises Forbidden if ``settings`` loosen approval, replay, replay gate
    or freeze rules compared with the defaults of the organization and the posture. Raises IntegrityError (409) if the
    name is taken. Raises InvalidInput if settings contradict each other, a new reviewer has no role, or the position is
    not from 1 to the new number of environments.
    """
    organization_defaults = project.organization.settings_with_defaults["default_environment_settings"]
    chosen = {**organization_defaults, **(settings or {})}
    others = _lock_order(project)
    last = others.count() + 1
    chosen_position = last if position is None else position
    environment = Environment(project=project, name=name, posture=posture, settings=chosen, position=chosen_position)
    with_defaults_only = Environment(posture=posture, settings=organization_defaults)
    with_defaults_only.project = project
    _check_loosening(with_defaults_only, environment.settings_with_defaults, may_loosen)
    _check_gate(environment)
    _check_enough_reviewers(environment)
    _check_position(chosen_position, last)
    _shift(others.filter(position__gte=chosen_position), 1)
    environment.save(force_insert=True)
    audit.record(
        "environment.create",
        actor=actor,
        scope=environment,
        resource=("environment", environment.pk),
        changes={
            "name": [None, name],
            "posture": [None, posture],
            "settings": [None, chosen],
            "position": [None, chosen_position],
        },
    )
    return environment


def _lock_order(project: Project) -> QuerySet[Environment]:
    """Lock the order of the project's environments until the transaction ends. Returns a query of the environments.

    Lock the order before any row of an environment. Otherwise a purge of the project, which locks the project first,
    could cause a deadlock.
    """
    lock_row(project)
    found: QuerySet[Environment] = Environment.objects.filter(project=project, deleted_at=None)
    return found


def _check_position(position: int, last: int) -> None:
    if not 1 <= position <= last:
        raise InvalidInput.at("/position", f"The position must be from 1 to {last}.", code="out_of_range")


def _shift(environments: QuerySet[Environment], by: int) -> None:
    """Change the positions of these environments without recording audit events for them.

    Locks the environments in the order of their ids, as a purge of the project does.
    """
    list(environments.order_by("pk").select_for_update(no_key=True).values_list("pk"))
    environments.update(position=F("position") + by, revision=F("revision") + 1, updated_at=timezone.now())


def _check_loosening(before: Environment, after: Mapping[str, Any], may_loosen: bool) -> None:
    """Raise Forbidden for looser rules, unless ``may_loosen`` or in dev.

    Raises InvalidInput as ``_adds_loosely`` does.
    """
    loosened = loosened_settings(Posture(before.posture), before.settings_with_defaults, after)
    adds_loosely = _adds_loosely(before, after["reviewers"]) and before.posture != Posture.DEV
    if adds_loosely and "reviewers" not in loosened:
        loosened.append("reviewers")
    if loosened and not may_loosen:
        raise Forbidden(f"Only an org_admin may loosen {', '.join(loosened)} in a {before.posture} environment.")


def _adds_loosely(before: Environment, reviewers: Sequence[str]) -> bool:
    """Return whether any new reviewer lacks the permission to operate. Raises InvalidInput for one without a role."""
    known = before.settings_with_defaults["reviewers"]
    new = {user_id: number for number, user_id in enumerate(reviewers) if user_id not in known}
    if not new:
        return False
    roles = members.roles_in_project(before.project, new)
    if strangers := [number for user_id, number in new.items() if UUID(user_id) not in roles]:
        detail = "This person has no role in the organization or the project."
        raise InvalidInput.at(f"/settings/reviewers/{strangers[0]}", detail, code="does_not_exist")
    return not all(Permission.OPERATE_ENVIRONMENT in GRANTS[role] for role in roles.values())


def _check_enough_reviewers(after: Environment) -> None:
    """Raise InvalidInput if there are reviewers, but fewer than ``required_approvals``."""
    settings = after.effective_settings
    if settings.reviewers and len(settings.reviewers) < (required := settings.release.required_approvals):
        detail = f"Name at least {required} reviewers, because required_approvals is {required}."
        raise InvalidInput.at("/settings/reviewers", detail, code="contradiction")


def _check_gate(after: Environment) -> None:
    """Raise InvalidInput if the replay gate is on although replays are disabled."""
    settings = after.effective_settings
    if settings.release.replay_gate is not GateMode.OFF and settings.replay_policy is ReplayPolicy.DISABLED:
        detail = "The replay gate needs replays. Set replay_policy to dry_run_only or allowed, or replay_gate to off."
        raise InvalidInput.at("/settings/replay_gate", detail, code="contradiction")


@transaction.atomic
def update_environment(
    environment: Environment,
    values: Mapping[str, Any],
    *,
    may_loosen: bool,
    actor: Actor,
    expected_revision: int | None = None,
) -> Environment:
    """Edit name, settings or position. Settings that are not in ``values`` keep their values.

    A new position moves the environment. The positions of the environments between its old and its new position change
    by 1 in the other direction.

    Unless ``may_loosen`` or the posture is dev, raises Forbidden if approval, replay, replay gate or freeze rules would
    loosen. Raises IntegrityError (409) if the name is taken. Raises InvalidInput if settings contradict each other, a
    new reviewer has no role, or the position is not from 1 to the number of environments. Raises NotFound if the
    environment is deleted. Also raises the errors of ``lock_revision``.
    """
    ordered = _lock_order(environment.project) if "position" in values else None
    locked = _lock_live(environment, expected_revision)
    merged = _merged(locked, values)
    after = Environment(posture=locked.posture, settings=merged.get("settings", locked.settings))
    _check_loosening(locked, after.settings_with_defaults, may_loosen)
    _check_gate(after)
    _check_enough_reviewers(after)
    if ordered is not None:
        _move_others(ordered, locked.position, merged["position"])
    return edit(locked, merged, kind="environment", scope=locked, actor=actor)


def _move_others(ordered: QuerySet[Environment], old: int, new: int) -> None:
    """Move the environments between two positions by 1, so that an environment can move from ``old`` to ``new``."""
    _check_position(new, ordered.count())
    if new < old:
        _shift(ordered.filter(position__gte=new, position__lt=old), 1)
    elif new > old:
        _shift(ordered.filter(position__gt=old, position__lte=new), -1)


def _lock_live[R: Project | Environment](row: R, expected_revision: int | None) -> R:
    """Lock the row as ``lock_revision`` does. Also raises NotFound if the row is marked as deleted."""
    locked = lock_revision(row, expected_revision)
    if locked.deleted_at is not None:
        raise NotFound("The resource has been deleted in the meantime.")
    return locked


@transaction.atomic
def delete(row: Project | Environment, *, kind: str, actor: Actor, expected_revision: int | None = None) -> None:
    """Hide a project or environment from all callers.

    The worker deletes it with everything in it at least a minute later. The audit events are kept. The
    positions of the environments after a deleted one decrease by 1, so that there is no gap. Raises NotFound if the row
    is already deleted, and the errors of ``lock_revision``.
    """
    ordered = _lock_order(row.project) if isinstance(row, Environment) else None
    locked = _lock_live(row, expected_revision)
    locked.deleted_at = timezone.now()
    locked.save(update_fields=["deleted_at"])
    if ordered is not None and isinstance(locked, Environment):
        _shift(ordered.filter(position__gt=locked.position), -1)
    audit.record(f"{kind}.delete", actor=actor, scope=locked, resource=(kind, locked.pk))
    options: dict[str, Any] = {"person": person_behind(actor), "after_s": PURGED_AFTER_S}
    if isinstance(locked, Project):
        enqueue(PurgeProject(id=str(locked.pk)), organization=locked.organization_id, **options)
    else:
        enqueue(PurgeEnvironment(id=str(locked.pk)), organization=locked.project.organization_id, **options)


@transaction.atomic
def purge(model: type[Project] | type[Environment], row_id: str) -> None:
    """Delete a row that is marked as deleted, with everything that belongs to it. Idempotent.

    Rows are locked from the top down, as in requests: an environment before its rows, a webhook before its deliveries.
    """
    row = model.objects.filter(pk=row_id, deleted_at__isnull=False).select_for_update().first()
    if row is None:
        return
    if isinstance(row, Project):
        _lock_all(Environment.objects.filter(project=row))
    for receiver in Receiver.__subclasses__():
        is_within = Q(project=row) | Q(environment__project=row) if isinstance(row, Project) else Q(environment=row)
        _lock_all(receiver._default_manager.filter(is_within))
    row.delete()


def _lock_all(rows: QuerySet[Any]) -> None:
    list(rows.order_by("pk").select_for_update(of=("self",)).values_list("pk"))
