"""``manage.py migrate``: Django's command, which refuses a database whose restore is unfinished."""

from __future__ import annotations

from typing import Any, override

from django.core.management.commands import migrate

from apps.operations.management import installation


class Command(migrate.Command):
    stealth_options = ("is_restore",)

    @override
    def handle(self, *args: Any, is_restore: bool = False, **options: Any) -> None:
        """Migrate the database. ``is_restore`` is true if ``manage.py restore`` itself calls this command."""
        if not is_restore:
            installation.check_restored()
        super().handle(*args, **options)
