"""The panel with the configuration on the page of a config bundle."""

from __future__ import annotations

from typing import Any

from django.utils.html import format_html
from django.utils.text import Truncator

from apps.releases.models import ConfigBundle
from apps.releases.services import bundles
from byteor.engine.configuration import diff_configurations
from byteor.engine.counted import count_of
from byteor_cloud.computing.compute import Compute

COLUMNS = ("stage_config", "adapters", "env", "snapshot")  # the JSON columns that the panel reads
_SHOWN = 200  # values
_LONGEST = 500  # characters of a value


def configuration_panel(row: ConfigBundle, *, compute: Compute) -> dict[str, Any]:
    """Return the panel of the first values in a config bundle, such as stage parameters and environment variables.

    References to secrets are shown by the name of the secret.
    """
    values = compute(diff_configurations, None, bundles.runtime_config(row))
    rest = len(values) - _SHOWN
    left = f"{count_of(rest, 'more value')} {'is' if rest == 1 else 'are'}"
    return {
        "id": "configuration",
        "title": "Configuration",
        "wide": True,
        "lead": f"{left} not shown. “All fields” has the complete configuration." if rest > 0 else "",
        "columns": ("Part", "Name", "Value"),
        "rows": [
            (
                each.what.replace("_", " "),
                format_html("<code>{}</code>", each.name) if each.name else "-",
                format_html('<code class="payload">{}</code>', Truncator(each.new or "").chars(_LONGEST)),
            )
            for each in values[:_SHOWN]
        ],
    }
