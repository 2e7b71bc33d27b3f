"""A form field for a list of objects. Each object is a row of inputs, and people add and remove rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django import forms
from django.forms.utils import flatatt
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

type Row = dict[str, str]
"""The texts of a row by the names of its columns."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a rows field."""

    label: str
    widget: Callable[[str], forms.Widget]  # returns the input for a value
    default: str = ""  # the value in a new row. A row is blank if all values are defaults or empty.
    completions: Callable[[], Mapping[str, str]] = dict  # values that the browser offers, with a note about each


class RowsWidget(forms.Widget):
    """The inputs of all rows and of a blank row. The script rows.js adds and removes rows.

    Without scripts, people add a row by filling in the blank one.

    A browser sends each column as a list of values, in the order of the rows. The widget ignores blank rows.
    """

    template_name = "console/rows.html"
    use_fieldset = True

    class Media:
        js = (forms.Script("byteor/rows.js", defer=True),)
        css = {"all": ("byteor/rows.css",)}

    def __init__(self, columns: Mapping[str, Column], noun: str) -> None:
        super().__init__()
        self.columns, self.noun = columns, noun
        self.faults: set[tuple[int, str]] = set()  # the positions and columns of invalid inputs

    def __deepcopy__(self, memo: Any) -> RowsWidget:
        copied: RowsWidget = super().__deepcopy__(memo)
        copied.faults = set()  # each form has its own
        return copied

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[Row]:
        """Return the rows that a browser sent, without blank ones. If ``data`` has a list of rows, return that list."""
        if isinstance(given := data.get(name), list):
            return given
        sent = {each: data.getlist(f"{name}.{each}") if hasattr(data, "getlist") else [] for each in self.columns}
        count = max(map(len, sent.values()))
        rows = [
            {each: (values[at].strip() if at < len(values) else self.columns[each].default)
             for each, values in sent.items()}
            for at in range(count)
        ]  # fmt: skip
        return [row for row in rows if not self._is_blank(row)]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        """Return False, because a browser sends nothing if all rows were removed."""
        return False

    def get_context(self, name: str, value: Sequence[Row] | None, attrs: dict[str, Any] | None) -> dict[str, Any]:
        """Return the context of the template: the labels and inputs of each row and, separately, of a blank row."""
        context: dict[str, Any] = super().get_context(name, None, attrs)
        blank = {each: column.default for each, column in self.columns.items()}
        rows = [self._inputs(name, at, row) for at, row in enumerate([*(value or ()), blank])]
        lists = {_list_id(name, each): column.completions() for each, column in self.columns.items()}
        context["widget"] |= {"rows": rows[:-1], "blank": rows[-1], "noun": self.noun, "lists": lists}
        return context

    def _is_blank(self, row: Row) -> bool:
        return all(not row[each] or row[each] == column.default for each, column in self.columns.items())

    def _inputs(self, name: str, at: int, row: Row) -> list[tuple[str, str, SafeString]]:
        inputs = []
        for each, column in self.columns.items():
            value = row.get(each) or column.default
            attrs = {"aria-invalid": "true"} if (at, each) in self.faults else {}
            attrs |= {"list": _list_id(name, each)} if column.completions is not dict else {}
            inputs.append((each, column.label, column.widget(value).render(f"{name}.{each}", value, attrs)))
        return inputs


class _HiddenRows(forms.Widget):
    """The rows as hidden inputs."""

    is_hidden = True

    def __init__(self, columns: Mapping[str, Column]) -> None:
        super().__init__()
        self._columns = columns

    def render(self, name: str, value: Sequence[Row] | None, attrs: Any = None, renderer: Any = None) -> SafeString:
        inputs = (
            (flatatt({"type": "hidden", "name": f"{name}.{each}", "value": row.get(each) or ""}),)
            for row in value or ()
            for each in self._columns
        )
        return format_html_join("", "<input{}>", inputs)


class RowsField(forms.Field):
    """A field whose value is a list of rows. ``noun`` names one row, as in "freeze window"."""

    widget: RowsWidget

    def __init__(self, columns: Mapping[str, Column], *, noun: str, **options: Any) -> None:
        super().__init__(required=False, widget=RowsWidget(columns, noun), **options)
        self.hidden_widget = partial(_HiddenRows, columns)  # type: ignore[assignment]  # Django calls it

    def clean(self, value: Any) -> list[Row]:
        """Return the rows."""
        return list(value or ())

    def locate(self, pointer: str) -> str:
        """Mark the input of an error as invalid. Return its name for the error's text, such as "Freeze window 2, end".

        ``pointer`` is the rest of a JSON pointer below the list, such as ``1/end``. If ``pointer`` names no row, return
        ``pointer``.
        """
        at, _, each = pointer.partition("/")
        if not at.isdecimal():
            return pointer
        self.widget.faults.add((int(at), each))
        column = self.widget.columns.get(each)
        name = f"{self.widget.noun.capitalize()} {int(at) + 1}"
        return f"{name}, {column.label.lower()}" if column else name


def _list_id(name: str, column: str) -> str:
    """Return the id of the element with the completions of a column."""
    return f"{name}-{column}-completions"
