"""The system check that compares the corrections of the theme's templates with the installed theme."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.template.loader import get_template

from apps.console import theme
from apps.operations.management.commands.serve import Command as Serve


def check() -> None:
    """Run the checks that the server runs at start."""
    call_command("check", tags=Serve.requires_system_checks)


def change_theme(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Make the check read a copy of the theme, and return the copy's base template."""
    monkeypatch.setattr(theme, "TEMPLATES", shutil.copytree(theme.TEMPLATES, folder / "templates"))
    return folder / "templates" / "admin" / "base.html"


def test_template_corrections_match_installed_theme() -> None:
    check()
    skeleton = get_template("unfold/layouts/skeleton.html").template.source  # type: ignore[attr-defined]
    assert ("chart.js" in skeleton, "<html" in skeleton) == (False, True)


def test_start_is_refused_if_theme_template_lacks_text_that_console_replaces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    template = change_theme(monkeypatch, tmp_path)
    template.write_text(template.read_text().replace('<div id="main"', '<section id="main"'))

    with pytest.raises(SystemCheckError) as refused:
        check()

    assert """The theme's template admin/base.html lacks '<div id="main"'.""" in str(refused.value)
    assert "Adapt apps/console/theme.py to the installed version of django-unfold." in str(refused.value)
    assert "1 issue" in str(refused.value)


def test_missing_theme_template_prevents_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    change_theme(monkeypatch, tmp_path).unlink()

    with pytest.raises(SystemCheckError, match=r"The theme's template admin/base\.html lacks '<div id=\"page\"'"):
        check()
