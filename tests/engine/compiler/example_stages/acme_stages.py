"""An installed package that brings two ops: one is a module with the two functions, one is an object."""

from typing import Any


class Repeat:
    """``repeat:<n>`` writes the payload n times; parameters may set a separator."""

    def validate(self, argument: str | None) -> str | None:
        """Ask for a count."""
        return None if argument and argument.isdigit() else 'it needs a count, such as "repeat:2".'

    def process(self, payload: bytes, params: dict[str, Any] | None, *, argument: str = "1") -> bytes | None:
        """Repeat the payload."""
        separator = str((params or {}).get("separator", "")).encode()
        return separator.join([payload] * int(argument))


repeat = Repeat()


class Moody:
    """An op whose own check fails."""

    def validate(self, argument: str | None) -> str | None:
        """Fail."""
        raise LookupError("\ud800 no table\nfound")

    def process(self, payload: bytes, params: dict[str, Any] | None) -> bytes | None:
        """Keep everything."""
        return payload


moody = Moody()


def validate(argument: str | None) -> str | None:
    """Take no argument."""
    return None if argument is None else "it takes no argument"


def process(payload: bytes, params: dict[str, Any] | None) -> bytes | None:
    """Drop what is blank."""
    return payload if payload.strip() else None
