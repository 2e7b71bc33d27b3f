"""The error that all functions of this package raise."""


class BackupError(Exception):
    """A backup cannot be written, read or restored. The message is one line for the operator, without secrets."""
