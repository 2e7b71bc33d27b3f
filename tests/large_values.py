"""The columns that tables' descriptions declare as large, and a function that fills them."""

from __future__ import annotations

from typing import Final

from django.apps import apps
from django.db import connection

from tests.described import TABLES
from tests.results import Results
from tests.tenancy.ledger_steps import without_triggers


def name_of(label: str) -> str:
    """Return the name of a model's database table."""
    return str(apps.get_model(label)._meta.db_table)


# Columns that the queries of lists, tables, searches and choices must not return unchanged.
LARGE: Final = frozenset(f"{name_of(label)}.{column}" for label, table in TABLES.items() for column in table.large)
# Columns of the same types as ``LARGE`` that are short or not in any list.
SHORT: Final = frozenset(f"{name_of(label)}.{column}" for label, table in TABLES.items() for column in table.short)
# Columns that a request reads from its own organization and environment, in separate queries.
_OWN: Final = frozenset({"tenancy_organization.settings", "tenancy_environment.settings"})
SIZE: Final = 200 * 1024
_SIZES: Final = {"tenancy_auditevent.changes": 7000}  # a constraint limits the size
_NEEDED: Final = frozenset(
    {
        "procrastinate_jobs.args",  # the console finds the tenant of a job by the job's arguments
        "fleet_heartbeat.series_closed",  # the charts show the slots that the job has not written yet
    }
)


def long_columns() -> dict[str, str]:
    """Return all columns whose type has no maximum length, with their types in the database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name || '.' || column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND (data_type IN ('jsonb', 'json', 'text', 'bytea', 'ARRAY')"
            " OR data_type = 'character varying' AND character_maximum_length IS NULL)"
        )
        return dict(cursor.fetchall())


def large_columns_in(noted: Results) -> set[str]:
    """Return the large columns in a request's results, except those of its own organization and environment."""
    return {each for columns, count in noted.seen if not _is_own(columns, count) for each in columns & LARGE}


def _is_own(columns: frozenset[str], count: int) -> bool:
    return count == 1 and columns & LARGE <= _OWN and all(each.startswith("tenancy_") for each in columns)


def enlarge() -> None:
    """Set the large columns of all rows to values of about ``SIZE`` bytes, which PostgreSQL compresses to about 1 %.

    Columns in ``_NEEDED`` stay unchanged, and those in ``_SIZES`` get smaller values. Objects and arrays keep their
    contents and get an additional item.
    """
    types = long_columns()
    with without_triggers() as cursor:  # triggers reject changes to immutable rows
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
