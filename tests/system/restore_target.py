"""A new installation into which tests restore backups, and a check of a refused command."""

from __future__ import annotations

from subprocess import CompletedProcess

from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.system.conftest import Installation

PASSPHRASE = "correct horse battery staple"


class RestoreTarget(Installation):
    """A new data folder, whose embedded database keeps running between commands, so that they start faster."""

    def __init__(self, **settings: str) -> None:
        super().__init__(is_prepared=False)
        self.settings = settings
        self._database = EmbeddedPostgres(self.data_dir)
        self.url = self._database.acquire()

    def restore(self, source: object, *options: object, **settings: str) -> CompletedProcess[str]:
        return self.manage("restore", str(source), *map(str, options), **{**self.settings, **settings})

    def remove(self) -> None:
        for server in list(self.servers):
            self.stop(server)
        self._database.release()
        super().remove()


def refused(done: CompletedProcess[str], reason: str) -> None:
    """Check that a command failed with one error line that contains this reason, and did not print the passphrase."""
    assert (done.returncode, done.stdout) == (1, "")
    [line] = [each for each in done.stderr.splitlines() if each.startswith("CommandError: ")]
    assert reason in line, done.stderr
    assert done.stderr.splitlines()[-1] == line
    assert "Traceback" not in done.stderr
    assert PASSPHRASE not in done.stderr
