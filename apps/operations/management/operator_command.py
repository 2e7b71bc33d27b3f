"""The base class of all commands in this app except ``migrate``."""

from typing import Any, override

from django.core.management.base import BaseCommand, CommandError
from django.db import ProgrammingError
from psycopg.errors import UndefinedColumn, UndefinedTable

from apps.tenancy.services.vault import MasterKeyUnavailable


class OperatorCommand(BaseCommand):
    """A command that by default runs without Django's system checks.

    The checks find mistakes in the code, and the tests run them already. They would import the whole API and console,
    which takes time.
    """

    requires_system_checks = []

    @override
    def execute(self, *args: Any, **options: Any) -> Any:
        """Run the command.

        Raises CommandError with one line for the operator if the master key is not available or migrations are missing.
        """
        try:
            return super().execute(*args, **options)
        except MasterKeyUnavailable as error:
            raise CommandError(error.advice) from None
        except ProgrammingError as error:
            if not isinstance(error.__cause__, UndefinedTable | UndefinedColumn):
                raise
            raise CommandError("the database lacks migrations of this release: start the service first") from None
