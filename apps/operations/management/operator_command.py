"""The base class of our commands for ``manage.py``."""

from django.core.management.base import BaseCommand


class OperatorCommand(BaseCommand):
    """A command that runs without Django's system checks.

    The checks find mistakes in the code, which the tests do once for all installations. They would import the whole API
    and console, which doubles the time that most commands take.
    """

    requires_system_checks = []
