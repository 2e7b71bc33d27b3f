"""The one namespace that the ingresses, egresses and stages of a pipeline share."""

from __future__ import annotations

from .diagnostics import Code, Report, shown


class Namespace(dict[str, str]):
    """Where each name stands first, by name; a name that comes again is reported there."""

    def add(self, name: str, pointer: str, report: Report) -> None:
        """Take a name."""
        first = self.setdefault(name, pointer)
        if first != pointer and not report.full:
            report.add(
                Code.STAGE_DUPLICATE_ID,
                pointer,
                f"The name {shown(name)} is taken at {first}; all names of a pipeline differ.",
                f"Write another name, such as {shown(self._free(name))}.",
            )

    def _free(self, name: str) -> str:
        number = 2
        while (free := f"{name[:57]}-{number}") in self:
            number += 1
        return free
