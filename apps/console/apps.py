from django.apps import AppConfig
from django.core import checks

from apps.console import theme


class ConsoleConfig(AppConfig):
    name = "apps.console"

    def ready(self) -> None:
        """Register the theme's system check. The command ``serve`` runs the checks with the tag ``theme``."""
        checks.register(theme.check_theme, "theme")
