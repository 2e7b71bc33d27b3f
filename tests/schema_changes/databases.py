"""Separate databases on the tests' server, and commands of ``manage.py`` that find chosen migrations."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg

from byteor_cloud.database import embedded_files
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
MIGRATED = ("tenancy", "fleet", "pipelines", "releases", "artifacts", "notifications")
_SETTINGS = """
from byteor_cloud.settings import *
MIGRATION_MODULES = {modules!r}
"""
_ADDED = """
from apps.{app} import migrations
__path__ += migrations.__path__
"""


class Migrations:
    """The migrations that a command of ``manage.py`` finds. By default those of the checkout."""

    def __init__(self, folder: Path) -> None:
        """Use an empty folder, which is created if necessary, for packages of migrations."""
        self._folder = folder
        self._modules: dict[str, str] = {}

    def add(self, app: str, name: str, source: str) -> None:
        """Add a migration to the app. ``LATEST`` in ``source`` becomes the name of the newest one in the checkout."""
        if app not in self._modules:
            self._package(app, "later").joinpath("__init__.py").write_text(_ADDED.format(app=app))
        latest = max(file.stem for file in (ROOT / "apps" / app / "migrations").glob("0*.py"))
        (self._folder / f"later_{app}" / f"{name}.py").write_text(source.replace("LATEST", latest))

    def end_at(self, last: Mapping[str, str]) -> None:
        """Keep only each app's unsquashed migrations up to the one named in ``last``, as in an earlier revision."""
        for app in MIGRATED:
            package = self._package(app, "earlier")
            (package / "__init__.py").touch()
            for file in (ROOT / "apps" / app / "migrations").glob("0*.py"):
                if file.stem <= last.get(app, "") and "_squashed_" not in file.stem:
                    (package / file.name).write_text(file.read_text())

    def environment(self) -> dict[str, str]:
        """Return the environment variables that select these migrations."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "chosen_settings.py").write_text(_SETTINGS.format(modules=self._modules))
        path = os.pathsep.join(filter(None, [str(self._folder), os.environ.get("PYTHONPATH")]))
        return {"DJANGO_SETTINGS_MODULE": "chosen_settings", "PYTHONPATH": path}

    def _package(self, app: str, kind: str) -> Path:
        self._modules[app] = f"{kind}_{app}"
        package = self._folder / self._modules[app]
        package.mkdir(parents=True)
        return package


class Database:
    """A separate database on the tests' server."""

    def __init__(self, name: str) -> None:
        self.url = _url(name)

    @classmethod
    @contextmanager
    def created(cls, *, is_migrated: bool = False) -> Iterator[Self]:
        """Create a database, and drop it at the end. If ``is_migrated``, it is a copy of the server's own database.

        Pass ``is_migrated`` only with the embedded server, whose database is migrated.
        """
        name = f"byteor_{uuid4().hex}"
        template = urlsplit(_server()).path.lstrip("/") if is_migrated else "template1"
        _maintain(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield cls(name)
        finally:
            _maintain(f'DROP DATABASE "{name}" WITH (FORCE)')

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """Open a connection."""
        return psycopg.connect(self.url, **options)

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query and return its rows."""
        with self.connect(autocommit=True) as session:
            return session.execute(query.encode()).fetchall()

    def start(self, *argv: str, migrations: Migrations, **variables: str) -> subprocess.Popen[str]:
        """Start a command of ``manage.py`` with this database. Its output and errors are in ``stdout``."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BYTEOR_")}
        ours = {
            "BYTEOR_CLOUD_DATABASE_URL": self.url,
            "BYTEOR_CLOUD_DATA_DIR": os.environ["BYTEOR_CLOUD_DATA_DIR"],
            "BYTEOR_CLOUD_MASTER_KEY": "dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=",
            "BYTEOR_CLOUD_SECRET_KEY": "test" * 10,
        }
        return subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), *argv],
            env=clean | ours | migrations.environment() | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def manage(self, *argv: str, migrations: Migrations) -> str:
        """Run a command of ``manage.py`` and return its output. Raises AssertionError if it fails."""
        process = self.start(*argv, migrations=migrations)
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, output
        return output

    def dump_schema(self) -> str:
        """Return the output of pg_dump for the schema."""
        account = embedded_files.Account(os.geteuid(), os.getegid())
        program = embedded_files.find_programs(account) / "pg_dump"
        arguments = [str(program), "--schema-only", "--no-owner", "--no-privileges", self.url]
        return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout


def _server() -> str:
    return os.environ.get("BYTEOR_CLOUD_DATABASE_URL") or os.environ["BYTEOR_EMBEDDED_DATABASE_URL"]


def _url(name: str) -> str:
    return urlsplit(_server())._replace(path=f"/{name}").geturl()


def _maintain(statement: str) -> None:
    with psycopg.connect(_url("postgres"), autocommit=True) as session:
        session.execute(statement.encode())
