"""The base class of our commands for ``manage.py``."""

from typing import Any, override

from django.core.management.base import BaseCommand, CommandError

from apps.tenancy.services.vault import MasterKeyUnavailable


class OperatorCommand(BaseCommand):
    """A command that runs without Django's system checks.

    The checks find mistakes in the code, which the tests do once for all installations. They would import the whole API
    and console, which doubles the time that most commands take.
    """

    requires_system_checks = []

    @override
    def execute(self, *args: Any, **options: Any) -> Any:
        """Run the command. Without the installation's master key, it ends with a line that says what to do."""
        try:
            return super().execute(*args, **options)
        except MasterKeyUnavailable as error:
            raise CommandError(error.advice) from None
