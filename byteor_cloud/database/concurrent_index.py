"""A migration operation that builds an index while other transactions write to its table."""

from __future__ import annotations

from typing import Any, override

from django.contrib.postgres.operations import AddIndexConcurrently

# A concurrent build waits for older transactions, and a timeout would discard the whole index. The build may wait much
# longer than other migrations, because reads and writes do not wait for it.
WAIT_S = 600


class BuildIndexConcurrently(AddIndexConcurrently):
    """A migration operation that builds an index without blocking writes.

    Its migration must have ``atomic = False`` and no other operation. An interrupted attempt leaves an
    invalid index, which slows writes and is never used. Therefore, an index with this name is dropped first.
    """

    @override
    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        self._ensure_not_in_transaction(schema_editor)
        with schema_editor.connection.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            [before] = cursor.fetchone()
        schema_editor.execute(f"SET lock_timeout = '{WAIT_S}s'")
        try:
            schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema_editor.quote_name(self.index.name)}")
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        finally:
            schema_editor.execute(f"SET lock_timeout = '{before}'")
