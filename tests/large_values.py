"""The columns that may be large, written down by hand, and rows in which they are."""

from __future__ import annotations

from typing import Final

from django.db import connection

from tests.results import Results
from tests.tenancy.ledger_steps import without_triggers

# Lists, tables, searches and choices return none of these columns unchanged.
LARGE: Final = frozenset({
    "tenancy_organization.settings", "tenancy_environment.settings", "tenancy_auditevent.changes",
    "tenancy_repeatedevent.changes",
    "tenancy_signingkey.private_key", "tenancy_idempotencykey.response", "tenancy_webhook.secret",
    "tenancy_webhook.previous_secret",
    "pipelines_draft.plan", "pipelines_draft.diagnostics",
    "pipelines_version.plan", "pipelines_version.spec", "pipelines_version.spec_kv",
    "fleet_heartbeat.report", "fleet_heartbeat.superseded_boots",
    "releases_configbundle.stage_config", "releases_configbundle.adapters", "releases_configbundle.env",
    "releases_configbundle.required_capabilities",
    "releases_approval.target", "releases_approval.capabilities", "releases_approval.credential",
    "releases_deployment.target", "releases_deployment.signing_keys", "releases_deployment.manifest",
    "releases_deployment.enlisting", "releases_deploymentagent.tuning", "releases_timelineentry.detail",
    "artifacts_artifact.reasons", "artifacts_artifact.metadata", "artifacts_bisect.versions", "artifacts_bisect.diff",
    "artifacts_replay.result", "artifacts_replay.audit", "artifacts_replay.warnings", "artifacts_replayframes.frames",
    "procrastinate_jobs.args",
})  # fmt: skip
_MACHINE = "random bytes of a fixed length, or a name that the code fixes"
_AGENT = "agents report at most 4,000 characters"
_REASON = "people write at most 2,000 characters"
_LIBRARY = "no list of ours reads this table of a library"
# Columns of the same types that are short, or that no list can reach, and why.
SHORT: Final = {
    "tenancy_webhook.events": "at most 100 types of events",
    "tenancy_webhookdelivery.attempts": "the last 50 attempts",
    "tenancy_signingkey.public_key": "32 bytes",
    "fleet_enrollmenttoken.labels": "at most 64 labels, which people choose agents by",
    "fleet_agent.labels": "at most 64 labels, which people choose agents by",
    "fleet_agent.public_key": "at most 2,000 characters",
    "fleet_agentkey.scopes": _MACHINE,
    "fleet_heartbeat.commands": _MACHINE,
    "fleet_labelcount.key": "at most 128 characters",
    "fleet_labelcount.value": "at most 255 characters",
    "fleet_assignment.failed_detail": _AGENT,
    "releases_deploymentagent.detail": _AGENT,
    "releases_agentreport.detail": _AGENT,
    "releases_agentfailure.detail": _AGENT,
    "releases_configbundle.snapshot": "two fields",
    "releases_approval.strategy": "at most 100 percentages",
    "releases_approval.options": "three values, of which a reason has at most 2,000 characters",
    "releases_deployment.strategy": "at most 100 percentages",
    "releases_deployment.policy": "six numbers",
    "releases_approvaldecision.comment": _REASON,
    "releases_deployment.note": _REASON,
    "releases_deployment.detail": _REASON,
    "releases_deployment.rollback_reason": _REASON,
    "releases_deployment.break_glass": _REASON,
    "releases_deployment.freeze_override": _REASON,
    "artifacts_bisect.predicate": "a word or an id",
    "artifacts_bisect.error": "shortened to 2,000 characters",
    "artifacts_replay.error": "shortened to 2,000 characters",
    "django_session.session_data": _LIBRARY,
    "django_admin_log.object_id": _LIBRARY,
    "django_admin_log.change_message": _LIBRARY,
    "social_auth_usersocialauth.extra_data": _LIBRARY,
    "social_auth_partial.data": _LIBRARY,
    "procrastinate_jobs.lock": _MACHINE,
    "procrastinate_jobs.byteor_error": "only the worker and dead letters read it, of one job",
    "procrastinate_jobs.byteor_person": "an id",
    "procrastinate_jobs.queueing_lock": _MACHINE,
}
# What a request reads of its own organization and environment, in rows of their own.
_OWN: Final = frozenset({"tenancy_organization.settings", "tenancy_environment.settings"})
SIZE: Final = 200 * 1024
_SIZES: Final = {"tenancy_auditevent.changes": 7000}  # where a constraint limits it
_NEEDED: Final = frozenset({"procrastinate_jobs.args"})  # the console finds the tenant of a job by its arguments


def long_columns() -> dict[str, str]:
    """Return all columns of a type without a length, with their types, as the database describes them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name || '.' || column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND (data_type IN ('jsonb', 'json', 'text', 'bytea', 'ARRAY')"
            " OR data_type = 'character varying' AND character_maximum_length IS NULL)"
        )
        return dict(cursor.fetchall())


def large_columns_in(noted: Results) -> set[str]:
    """Return the large columns in the results of a request, without those of its own organization and environment."""
    return {each for columns, count in noted.seen if not _is_own(columns, count) for each in columns & LARGE}


def _is_own(columns: frozenset[str], count: int) -> bool:
    return count == 1 and columns & LARGE <= _OWN and all(each.startswith("tenancy_") for each in columns)


def enlarge() -> None:
    """Set the large columns of all rows to values of about ``SIZE`` bytes, which PostgreSQL compresses to about 1 %.

    An object keeps its keys and gets another one.
    """
    types = long_columns()
    with without_triggers() as cursor:  # they reject changes of immutable rows
        for name in sorted(LARGE - _NEEDED):
            table, column = name.split(".")
            size = _SIZES.get(name, SIZE)
            value = _VALUES[types[name]].format(column=column, text=f"repeat('x', {size})")
            cursor.execute(f"UPDATE {table} SET {column} = {value}")


_VALUES: Final = {
    "text": "{text}",
    "bytea": "{text}::bytea",
    "jsonb": (
        "CASE jsonb_typeof({column}) WHEN 'object' THEN {column} || jsonb_build_object('padding', {text})"
        " WHEN 'array' THEN {column} || jsonb_build_array({text}) ELSE jsonb_build_object('padding', {text}) END"
    ),
}
