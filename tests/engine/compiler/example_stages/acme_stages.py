"""An example package with ops: the module itself is an op, and it contains two more."""

from typing import Any


class Repeat:
    """The op ``repeat:<n>``: repeats the payload n times, joined by the parameter ``separator``."""

    def validate(self, argument: str | None) -> str | None:
        """Require a count."""
        return None if argument and argument.isdigit() else 'it needs a count, such as "repeat:2".'

    def process(self, payload: bytes, params: dict[str, Any] | None, *, argument: str = "1") -> bytes | None:
        """Repeat the payload."""
        separator = str((params or {}).get("separator", "")).encode()
        return separator.join([payload] * int(argument))


repeat = Repeat()


class Moody:
    """An op whose ``validate`` raises an error."""

    def validate(self, argument: str | None) -> str | None:
        """Raise LookupError."""
        raise LookupError("\ud800 no table\nfound")

    def process(self, payload: bytes, params: dict[str, Any] | None) -> bytes | None:
        """Return the payload unchanged."""
        return payload


moody = Moody()


def validate(argument: str | None) -> str | None:
    """Refuse an argument."""
    return None if argument is None else "it takes no argument"


def process(payload: bytes, params: dict[str, Any] | None) -> bytes | None:
    """Drop blank payloads."""
    return payload if payload.strip() else None
