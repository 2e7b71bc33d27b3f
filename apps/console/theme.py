"""Corrections of the theme's templates for people who use a keyboard or a screen reader, and for slow browsers.

The theme draws its icons as words, which screen readers read aloud, and builds buttons from ``span`` elements
and from links without a URL. It also loads half a megabyte of scripts that the console does not use, such as charts and
jQuery. Overriding the templates would copy hundreds of lines. Instead, this module hides the icons from screen readers
with a pattern, and replaces exact snippets. A system check compares the snippets with the installed theme.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import unfold
from django.core.checks import Error
from django.template import Origin
from django.template.loaders import app_directories

TEMPLATES = Path(unfold.__path__[0]) / "templates"

_ICON = re.compile(r"<span (?=[^<>]*material-symbols-outlined)")
_CLOSE = (
    "block cursor-pointer h-[18px] xl:hidden! hover:text-base-700 dark:hover:text-base-200",
    'x-on:click="sidebarToggle()">',
)
_NARROW = "window.innerWidth <= 1280"  # the theme's limit: on narrower pages, the open menu covers content

_FOCUS = (
    '<script id="django-admin-form-add-constants" src="{% static \'admin/js/change_form.js\' %}"'
    '{% if adminform and add %} data-model-name="{{ opts.model_name }}"{% endif %} async></script>'
)
_MESSAGES = """<script src="{% url 'admin:jsi18n' %}"></script>"""  # translations, which only bulk actions use

_CORRECTIONS: Mapping[str, Sequence[tuple[str, str]]] = {
    "unfold/layouts/skeleton.html": [
        ("<script src=\"{% static 'unfold/js/alpine/alpine.sort.js' %}\" defer></script>", ""),
        ("<script src=\"{% static 'unfold/js/htmx/htmx.js' %}\"></script>", ""),
        ("<script src=\"{% static 'unfold/js/chart/chart.js' %}\"></script>", ""),
    ],
    "admin/change_form.html": [
        (_MESSAGES, ""),
        ("{{ media }}", ""),
        (_FOCUS, ""),
        ("{% prepopulated_fields_js %}", ""),
    ],
    "admin/change_list.html": [
        ("{% unfold_result_list cl %}", "{% load frame %}{% list_rows cl %}"),
        (_MESSAGES, f"{{% if action_form %}}{_MESSAGES}{{% endif %}}"),
        (
            "{{ media.js }}",
            "{% if action_form %}<script src=\"{% static 'admin/js/actions.js' %}\"></script>{% endif %}",
        ),
    ],
    "admin/base.html": [
        ('<div id="page"', '<a class="skip-link" href="#main">Skip to the content</a>\n    <div id="page"'),
        ('<div id="main"', '<main id="main" tabindex="-1"'),
        ("{% block footer %}{% endblock %}\n        </div>", "{% block footer %}{% endblock %}\n        </main>"),
    ],
    "admin/nav_sidebar.html": [
        (
            'x-show="sidebarOpen"',
            f'x-show="sidebarOpen" x-trap="sidebarOpen === true && {_NARROW}" '
            f'x-on:keydown.escape.window="if ({_NARROW}) sidebarOpen = false"',
        ),
    ],
    "admin/filter.html": [("<h3", "<h2"), ("</h3>", "</h2>")],
    "admin/search_form.html": [
        ('id="searchbar-submit"', 'id="searchbar-submit" aria-label="Search this list"'),
        ('<input type="text"', '<input type="text" aria-label="Search this list"'),
        # In the console, the key / opens the global search, not the search of the list.
        ('{% include "unfold/helpers/shortcut.html" with shortcut="/" %}', ""),
    ],
    "unfold/helpers/navigation.html": [('id="nav-sidebar-inner"', 'id="nav-sidebar-inner" aria-label="Main"')],
    "unfold/helpers/navigation_header.html": [
        (
            f'<span class="material-symbols-outlined {_CLOSE[0]}" {_CLOSE[1]}\n        close\n    </span>',
            f'<button type="button" aria-label="Close the menu" class="{_CLOSE[0]}" {_CLOSE[1]}'
            '<span class="material-symbols-outlined">close</span></button>',
        ),
    ],
    "unfold/helpers/app_list.html": [
        (
            '{% if group.collapsible %}x-on:click="navigationOpen = !navigationOpen"{% endif %}>',
            '>{% if group.collapsible %}<button type="button" class="cursor-pointer flex grow items-center" '
            'x-on:click="navigationOpen = !navigationOpen" x-bind:aria-expanded="navigationOpen">{% endif %}',
        ),
        ("</h2>", "{% if group.collapsible %}</button>{% endif %}</h2>"),
        ("<a {% if item.items", '<a {% if item.active %}aria-current="true" {% endif %}{% if item.items'),
    ],
    "unfold/helpers/theme_switch.html": [
        ('<a class="cursor-pointer', '<button type="button" class="cursor-pointer'),
        ("</a>", "</button>"),
        *[
            (f"x-on:click=\"switchTheme('{name}')\"", f"x-on:click=\"switchTheme('{name}')\" {pressed}")
            for name in ("light", "dark", "auto")
            for pressed in [f"x-bind:aria-pressed=\"adminTheme == '{name}'\""]
        ],
    ],
    "unfold/helpers/tab_actions.html": [
        ('with href="#"', 'with type="button"'),
        (
            "x-on:click='showActions = !showActions'",
            "aria-label='Actions' x-bind:aria-expanded='showActions' x-on:click='showActions = !showActions'",
        ),
        (
            'x-on:click.outside="showActions = false"',
            'x-on:click.outside="showActions = false" x-on:keydown.escape="showActions = false"',
        ),
    ],
    "unfold/helpers/change_list_filter_button.html": [
        ('<a class="filter-open-button', '<button type="button" class="filter-open-button'),
        ("</a>", "</button>"),
        ('x-on:click="filterOpen = true"', 'x-on:click="filterOpen = true" x-bind:aria-expanded="filterOpen"'),
    ],
    "unfold/helpers/change_list_filter_vertical.html": [
        ('x-trap.noautofocus.noscroll="filterModalOpen"', 'x-trap.noscroll="filterOpen"'),
        ('<div id="changelist-filter"', '<div id="changelist-filter" role="dialog" aria-label="Filters"'),
    ],
}


class CorrectedTheme(app_directories.Loader):
    """A loader of the installed apps' templates, which corrects the theme's templates."""

    def get_contents(self, origin: Origin) -> str:
        """Return the source of a template, corrected if the template belongs to the theme."""
        contents = super().get_contents(origin)
        if not Path(origin.name).is_relative_to(TEMPLATES):
            return contents
        for wrong, right in _CORRECTIONS.get(str(origin.template_name), ()):
            contents = contents.replace(wrong, right)
        return _ICON.sub('<span aria-hidden="true" ', contents)


def check_theme(**kwargs: Any) -> list[Error]:
    """Return an error for each snippet that a correction replaces but that the installed theme does not contain."""
    errors = []
    for name, corrections in _CORRECTIONS.items():
        file = TEMPLATES / name
        contents = file.read_text() if file.is_file() else ""
        for wrong, right in corrections:
            if wrong not in contents:
                hint = "Adapt apps/console/theme.py to the installed version of django-unfold."
                errors.append(Error(f"The theme's template {name} lacks {wrong!r}.", hint, id="console.E001"))
            contents = contents.replace(wrong, right)
    return errors
