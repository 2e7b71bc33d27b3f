"""The error for a backup that cannot be written, read or restored."""

from __future__ import annotations


class BackupError(Exception):
    """A backup cannot be written, read or restored. The message is one line for the operator, without secrets."""

    def __init__(self, message: str) -> None:
        # File names and manifests may contain line breaks and the control characters of terminals.
        super().__init__("".join(each if each.isprintable() else "?" for each in message))
