"""``manage.py rotate_master_key``: re-encrypt all stored secrets with the current master key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db import connection, transaction

from apps.operations.management import installation
from apps.operations.management.operator_command import OperatorCommand
from apps.tenancy.actors import system_actor
from apps.tenancy.models import Host, MasterKey
from apps.tenancy.models.sealed_field import sealed_fields
from apps.tenancy.services import hosts, master_key, vault
from byteor_cloud.config import PREFIX, Config, replace_key

LOCK = 7_226_190_003  # the id of an advisory lock: arbitrary, but equal in all processes
CURRENT, PREVIOUS = f"{PREFIX}MASTER_KEY", f"{PREFIX}MASTER_KEY_PREVIOUS"
FINISH = "rotate_master_key --finish"
SEEN = f"seen in the last {hosts.LIVE_FOR.seconds} seconds"


class Command(OperatorCommand):
    help = (
        "Re-encrypt all stored secrets with the current master key instead of the previous one. If the data "
        "folder contains the key and there is no previous one, first create a new key. Servers may keep running. Run "
        "the command again if it was interrupted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the option that removes the previous key. This is a separate step because it cannot be undone."""
        parser.add_argument(
            "--finish", action="store_true", help="create no new key, and remove the previous key from the data folder"
        )

    def handle(self, *args: Any, finish: bool, **options: Any) -> str:
        """Re-encrypt the secrets in one transaction. Remove the previous key if requested. Concurrent runs wait."""
        current: Config = settings.CONFIG
        key, previous = current.master_key, current.master_key_previous
        files = (key, previous) if isinstance(key, Path) and isinstance(previous, Path) else None
        if finish and files is None:
            raise CommandError(f"--finish requires both master keys in the data folder: unset {PREVIOUS} instead")
        installation.migrate()
        try:
            with transaction.atomic():
                _lock()
                counts = _rotate()
                # Replace the key only after all secrets could be decrypted. Running servers then have both keys.
                if files is not None and not finish:
                    _ensure_alone()
                    if replace_key(*files):
                        counts = _rotate()
        except vault.MasterKeyUnavailable as error:
            raise CommandError(f"{error.advice}; nothing was changed") from None
        except vault.VaultError as error:
            raise CommandError(f"{error}; nothing was changed") from None
        if finish and files is not None:
            _remove(files[1])
        return "\n".join([_summary(counts), *_advice(files)])


def _lock() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])


def _rotate() -> Mapping[str, int]:
    """Re-encrypt the values. Raises CommandError if the master key changes and a live host lacks the new one."""
    new = vault.own_key_ids()[0]
    if new != vault.ensure_key() and (without := _hosts_without(new)):
        raise CommandError(
            f"nothing was changed, because these hosts have the master key {new} neither as {CURRENT} nor as"
            f" {PREVIOUS}:\n{_format_hosts(without)}\nSet it there, restart these hosts, and run rotate_master_key"
            " again."
        )
    return master_key.reseal(actor=system_actor("rotate_master_key"))


def _ensure_alone() -> None:
    """Raise CommandError if a live host would not receive the key that this command generates in the data folder."""
    if others := hosts.others():
        raise CommandError(
            f"nothing was changed, because these hosts do not read the master key from this data folder:\n"
            f"{_format_hosts(others)}\nWith several hosts, set {CURRENT} on each host, initially to the key in this"
            " data folder."
        )


def _hosts_without(key_id: str) -> list[Host]:
    return [host for host in hosts.others() if key_id not in {host.key_id, host.previous_key_id}]


def _format_hosts(listed: Iterable[Host]) -> str:
    return "\n".join(f"  {host}, since {host.started_at:%Y-%m-%d %H:%M:%S} UTC" for host in listed)


def _summary(counts: Mapping[str, int]) -> str:
    nouns = {str(field): field.noun for field in sealed_fields()}
    kinds = ", ".join(f"{count} {nouns[name]}{'s' if count != 1 else ''}" for name, count in counts.items())
    total = sum(counts.values())
    summary = f"{total} value{' was' if total == 1 else 's were'} re-encrypted with the current master key"
    return f"{summary} ({vault.own_key_ids()[0]}){': ' if kinds else ''}{kinds}."


def _advice(files: tuple[Path, Path] | None) -> Iterator[str]:
    """Yield lines with the operator's next steps."""
    stored = MasterKey.objects.get()
    without = _hosts_without(stored.key_id)
    behind = [host for host in hosts.others() if stored.key_id == host.previous_key_id]
    if without:
        yield "These hosts do not have this key. They are not ready, and return 503 for requests that need it:"
        yield _format_hosts(without)
    if behind:
        yield f"These hosts have this key only as {PREVIOUS}:"
        yield _format_hosts(behind)
        yield (
            f"If {CURRENT} is already set to the new key on these hosts, run rotate_master_key on one of them, and "
            "skip the next steps."
        )
    if without or behind:
        yield f"Next: set {CURRENT} to the current key on these hosts, and restart them."
        yield "Then run rotate_master_key again. Keep the previous key until that command lists no hosts."
    elif files is not None:
        if files[1].exists():
            yield f"The previous key is kept in {files[1]} until you run {FINISH}."
        else:
            yield (
                "The data folder contains no previous key. A backup of the database that was made before a rotation "
                "still needs the key that was the current key when the backup was made."
            )
    else:
        yield from _advice_on_settings(stored)


def _advice_on_settings(stored: MasterKey) -> Iterator[str]:
    _, *previous = vault.own_key_ids()
    if not previous:
        yield "No previous key is set here. To change the key:"
        yield f"1. On each host, set {CURRENT} to a new key and {PREVIOUS} to the current one. Restart the host."
        yield "2. Run rotate_master_key."
    elif previous != [stored.previous_key_id]:
        if stored.previous_key_id:
            yield f"{PREVIOUS} ({previous[0]}) is not the key that was replaced ({stored.previous_key_id})."
        else:
            yield f"{PREVIOUS} ({previous[0]}) is set, but no key has been replaced yet."
        yield f"To rotate to the key {previous[0]}: set {CURRENT} to it and {PREVIOUS} to the current key on each host."
        yield "Restart the hosts, and run rotate_master_key again."
    else:
        yield f"None of the hosts {SEEN} needs the previous key ({previous[0]})."
        yield f"Next: unset {PREVIOUS} on each host, and restart the host."
        yield "Older backups of the database still need the previous key."


@transaction.atomic
def _remove(previous: Path) -> None:
    """Remove the previous key after the new key's id was committed.

    Raises CommandError if a live host does not have the new key as its current one, or if the key was replaced again.
    """
    _lock()  # no other command may replace the key at the same time
    stored = vault.ensure_key()
    if vault.own_key_ids()[0] != stored:
        raise CommandError("the key was replaced in the meantime: run the command again")
    if users := [host for host in hosts.others() if host.key_id != stored]:
        raise CommandError(
            f"the previous key was not removed, because these hosts do not have the master key {stored} as {CURRENT}:\n"
            f"{_format_hosts(users)}\nSet it there, restart these hosts, and run {FINISH} again."
        )
    previous.unlink(missing_ok=True)
