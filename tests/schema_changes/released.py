"""The migrations of the last release, and the columns that its processes use.

``released.txt`` lists the migrations, because copies of the repository may lack the tag of the release.
"""

from __future__ import annotations

from pathlib import Path

from django.apps import apps
from django.db.migrations.loader import MigrationLoader

LIST = Path(__file__).with_suffix(".txt")
APPS = Path(__file__).parents[2] / "apps"

type Name = tuple[str, str]
"""The label of an app and the name of a migration, or a table and a column."""


def read_list() -> set[Name]:
    """Return the migrations of the last release."""
    app_and_names = (line.partition(" ") for line in LIST.read_text().splitlines())
    return {(app, name) for app, _, name in app_and_names}


def write_list() -> None:
    """Write the list of a release that contains all present migrations."""
    ours = sorted((file.parent.parent.name, file.stem) for file in APPS.glob("*/migrations/0*.py"))
    LIST.write_text("".join(f"{app} {name}\n" for app, name in ours))


def find_new(loader: MigrationLoader, released: set[Name]) -> list[Name]:
    """Return the migrations of our apps that are newer than the release."""
    labels = {config.label for config in apps.get_app_configs() if config.name.startswith("apps.")}
    return sorted(name for name in loader.graph.nodes if name[0] in labels and name not in released)


def find_columns(loader: MigrationLoader, migrations: set[Name]) -> set[Name]:
    """Return the columns of our apps' models as they are after these migrations."""
    applied = [name for name in migrations if name in loader.graph.nodes]
    labels = {app for app, _ in migrations}
    models = loader.project_state(applied).apps.get_models(include_auto_created=True)
    return {
        (model._meta.db_table, field.column)
        for model in models
        if model._meta.app_label in labels
        for field in model._meta.local_concrete_fields
        if field.column is not None
    }
