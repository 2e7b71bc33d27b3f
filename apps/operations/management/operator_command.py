"""The base class of all commands in this app except ``migrate``."""

from typing import Any, override

from django.core.management.base import BaseCommand, CommandError

from apps.tenancy.services.vault import MasterKeyUnavailable


class OperatorCommand(BaseCommand):
    """A command that by default runs without Django's system checks.

    The checks find mistakes in the code, and the tests run them already. They would import the whole API and console,
    which takes time.
    """

    requires_system_checks = []

    @override
    def execute(self, *args: Any, **options: Any) -> Any:
        """Run the command. Without the master key, raises CommandError with one line for the operator."""
        try:
            return super().execute(*args, **options)
        except MasterKeyUnavailable as error:
            raise CommandError(error.advice) from None
