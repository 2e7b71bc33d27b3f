from django.apps import AppConfig
from django.core import checks

from apps.console import theme


class ConsoleConfig(AppConfig):
    name = "apps.console"

    def ready(self) -> None:
        """Register the system check of the theme. The command ``serve`` runs it by its tag."""
        checks.register(theme.check_theme, "theme")
