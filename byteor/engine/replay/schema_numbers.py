"""The keywords of JSON Schema that limit numbers, compared exactly, as decimal numbers of any size."""

from __future__ import annotations

from decimal import Context, Decimal, InvalidOperation
from typing import Any, override


class _Mismatch(Exception):
    """Raised for a number that does not conform to a keyword."""


class _Bound:
    """A keyword that limits numbers, compared exactly."""

    def __init__(self, parent_schema: object, limit: Any, schema_path: object) -> None:
        self.limit = _exact_decimal(limit)

    def validate(self, instance: Any) -> None:
        """Raise _Mismatch for a number that does not conform."""
        is_number = isinstance(instance, (int, float, Decimal)) and not isinstance(instance, bool)
        if is_number and not self.admits(_exact_decimal(instance)):
            raise _Mismatch

    def admits(self, number: Decimal) -> bool:
        """Return whether the number conforms."""
        raise NotImplementedError  # pragma: no cover  every subclass overrides it


class _Minimum(_Bound):
    @override
    def admits(self, number: Decimal) -> bool:
        return number >= self.limit


class _Maximum(_Bound):
    @override
    def admits(self, number: Decimal) -> bool:
        return number <= self.limit


class _ExclusiveMinimum(_Bound):
    @override
    def admits(self, number: Decimal) -> bool:
        return number > self.limit


class _ExclusiveMaximum(_Bound):
    @override
    def admits(self, number: Decimal) -> bool:
        return number < self.limit


class _MultipleOf(_Bound):
    @override
    def admits(self, number: Decimal) -> bool:
        return not _EXACT_ARITHMETIC.remainder(number, self.limit)


EXACT_KEYWORDS = {
    "minimum": _Minimum,
    "maximum": _Maximum,
    "exclusiveMinimum": _ExclusiveMinimum,
    "exclusiveMaximum": _ExclusiveMaximum,
    "multipleOf": _MultipleOf,
}
# A number has at most 1,000 digits and an exponent of ten within ±1,000, so a quotient has fewer than 5,000 digits.
_EXACT_ARITHMETIC = Context(prec=10_000, traps=[InvalidOperation])


def _exact_decimal(number: float | Decimal) -> Decimal:
    """Return the number as it was written. A float stands for its shortest decimal text."""
    return Decimal(repr(number)) if isinstance(number, float) else Decimal(number)
