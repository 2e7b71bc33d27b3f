"""The command line of ``manage.py`` and ``byteor-cloud``. It starts the embedded database if a command may need it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from django.core.management import execute_from_command_line
from django.db import OperationalError, connections

from byteor_cloud import __version__, config
from byteor_cloud.database.connections import COMMAND, PROCESS_KIND_VARIABLE
from byteor_cloud.database.embedded import EmbeddedPostgres
from byteor_cloud.database.embedded_files import EmbeddedPostgresError

# These commands do not use the database, so the embedded database is not started for them.
OFFLINE = {"simulate_fleet", "spectacular", "collectstatic", "check", "help", "--help"}
OFFLINE_BACKUP = ("--verify", "--extract-master-key")  # with these options, ``backup`` reads a backup, not the database
VERSION = {"version", "--version"}


def main() -> int:
    """Run the command that the process's arguments name, and return its exit code. The entry point ``byteor-cloud``."""
    return run(sys.argv)


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code. Raises SystemExit if Django exits, for example after an error."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "byteor_cloud.settings")
    command = (*argv[1:2], "help")[0]
    if command in VERSION:  # Django would print its own version
        print(f"byteor-cloud {__version__}")
        return 0
    is_offline = command in OFFLINE or (command == "backup" and any(each.startswith(OFFLINE_BACKUP) for each in argv))
    os.environ[PROCESS_KIND_VARIABLE] = "worker" if command == "worker" else COMMAND
    embedded: EmbeddedPostgres | None = None
    try:
        settings = config.load(os.environ)
        if settings.database_url is None and not is_offline:
            embedded = EmbeddedPostgres(settings.data_dir)
            os.environ["BYTEOR_EMBEDDED_DATABASE_URL"] = embedded.acquire()
        try:
            execute_from_command_line(list(argv))
        except OperationalError as error:
            reason = str(error).partition("\n")[0]
            print(f"byteor-cloud: the database cannot be used: {reason}", file=sys.stderr)
            return 1
    except (config.ConfigError, EmbeddedPostgresError) as error:
        print(f"byteor-cloud: {error}", file=sys.stderr)
        return 2
    finally:
        if embedded is not None:
            # Otherwise the database server could be stopped while this command still uses a connection.
            connections.close_all()
            embedded.release()
        gc.freeze()  # so that the interpreter does not search all modules for garbage at exit, which takes 0.3 s
    return 0
