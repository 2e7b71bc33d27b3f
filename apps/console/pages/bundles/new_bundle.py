"""The form for a new config bundle, with fields for the stages of a version."""

from __future__ import annotations

from typing import Any, NamedTuple

from django import forms
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from apps.console.pages.deployments.forms import ApiForm, JsonField
from apps.pipelines.models import Version
from apps.releases.api.serializers.bundles import ADAPTER_SCHEMA, ENV_SCHEMA
from apps.releases.models import ConfigBundle
from apps.releases.services.bundles import ADAPTER_KINDS, WAIT_BY_PROFILE
from byteor.engine.replay import OpReference, find_reference, reference_of
from byteor_cloud.computing.computations import installed_ops
from byteor_cloud.errors import DomainError, FieldError, child_pointer

MAX_STAGES = 100  # a version with more stages has one field for the parameters of all stages
_ADAPTER = f"A JSON object with the adapter's kind and parameters. Kinds: {', '.join(ADAPTER_KINDS)}."
_ENV_SCHEMA = {
    **ENV_SCHEMA,
    "description": "a value is a string or the name of a secret (secret_ref), which the agent resolves on its own host",
    "additionalProperties": {**ENV_SCHEMA["additionalProperties"], "title": "Variable"},
}


class ErrorPlace(NamedTuple):
    """An error of a JSON value. ``pointer`` is the JSON Pointer of the faulty part, which ``detail`` does not name."""

    text: str
    pointer: str = ""
    detail: str = ""


class JsonInput(NamedTuple):
    """A JSON field that parameters.js can replace with generated fields.

    ``schema`` is a key of ``NewConfigBundle.schemas``, and ``reference`` describes the op of a stage.
    """

    field: forms.BoundField
    schema: str
    errors: list[ErrorPlace]
    reference: OpReference | None = None


class NewConfigBundle(ApiForm):
    """The form for a new config bundle. More than ``MAX_STAGES`` stages share one field for their parameters."""

    name = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    tuning_profile = forms.ChoiceField(
        choices=[(each, each) for each in WAIT_BY_PROFILE], widget=UnfoldAdminSelectWidget
    )
    wait = forms.ChoiceField(
        choices=[("", "default of the tuning profile"), ("backoff", "backoff: sleep"), ("spin", "spin: occupy a core")],
        required=False, widget=UnfoldAdminSelectWidget, label="How the runtime waits for records",
    )  # fmt: skip
    snapshot_s = forms.IntegerField(
        min_value=1, max_value=86400, required=False, widget=UnfoldAdminIntegerFieldWidget,
        label="Seconds between snapshots", help_text="If empty, the runtime takes no snapshots.",
    )  # fmt: skip
    ingress = JsonField(label="Ingress adapter", help_text=_ADAPTER)
    egress = JsonField(label="Egress adapter", help_text=_ADAPTER)
    env = JsonField(
        label="Environment variables",
        help_text='Each value is a string, or {"secret_ref": "NAME"}, which the agent resolves on its own host.',
    )

    def __init__(self, version: Version, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._version = version
        stages = version.stages
        self.stages: dict[str, str] = {}  # field names by stage id
        self._places: dict[str, ErrorPlace] = {}  # by text
        self._references: dict[str, OpReference] = {}  # by field name
        self.schemas: dict[str, Any] = {"adapter": ADAPTER_SCHEMA, "env": _ENV_SCHEMA}
        if len(stages) > MAX_STAGES:
            self.fields["stage_config"] = JsonField(label="Stage parameters, by stage id")
            return
        ops = reference_of(installed_ops())
        for number, (stage_id, op) in enumerate(stages):
            self.stages[stage_id] = name = f"stage-{number}"
            self.fields[name] = JsonField(label=f"Parameters of stage {stage_id}", help_text=f"Op: {op}")
            self._references[name] = reference = find_reference(ops, op)
            self.schemas[f"op:{reference.key}"] = reference.parameters

    def body(self) -> dict[str, Any]:
        """Return the API's request body for this config bundle."""
        data = {name: value for name, value in self.cleaned_data.items() if value not in (None, "")}
        stage_config = data.get("stage_config", {})
        stage_config |= {stage_id: data[name] for stage_id, name in self.stages.items() if name in data}
        interval = data.get("snapshot_s")
        return {
            "version_id": str(self._version.pk),
            **{name: data[name] for name in ("name", "tuning_profile", "wait", "env") if name in data},
            "stage_config": stage_config,
            "adapters": {name: data[name] for name in ("ingress", "egress") if name in data},
            "snapshot": {"enabled": True, "interval_s": interval} if interval else {"enabled": False},
        }

    def field_of(self, pointer: str) -> tuple[str | None, str]:
        """Return the name of the field for a JSON pointer into the body, or None, and the rest of the pointer.

        The rest is left out for the snapshot.
        """
        for stage_id, name in self.stages.items():
            at = child_pointer("/stage_config", stage_id)
            if pointer == at or pointer.startswith(f"{at}/"):
                return name, pointer[len(at) + 1 :]
        if pointer.startswith("/snapshot"):
            return "snapshot_s", ""
        return super().field_of(pointer.removeprefix("/adapters"))

    def show(self, error: DomainError) -> None:
        """Show the error next to the fields that it names. Also record which part of a JSON value is faulty."""
        for each in error.errors:
            if isinstance(each, FieldError) and (rest := self.field_of(each.pointer)[1]):
                place = ErrorPlace(f"{rest}: {each.detail}", f"/{rest}", each.detail)
                self._places[place.text] = place
        super().show(error)

    def groups(self) -> list[tuple[str, list[forms.BoundField | JsonInput]]]:
        """Return the fields by heading, in the order of the page."""
        parameters = list(self.stages.values())
        every = [] if parameters else list(self.named("stage_config"))
        return [
            ("", list(self.named("name", "tuning_profile", "wait", "snapshot_s"))),
            ("Stage parameters", [*map(self._stage_input, parameters), *every]),
            (
                "Adapters and environment variables",
                [self._input("ingress", "adapter"), self._input("egress", "adapter"), self._input("env", "env")],
            ),
        ]

    def _stage_input(self, name: str) -> JsonInput:
        reference = self._references[name]
        return self._input(name, f"op:{reference.key}", reference)

    def _input(self, name: str, schema: str, reference: OpReference | None = None) -> JsonInput:
        errors = [self._places.get(text, ErrorPlace(text)) for text in map(str, self[name].errors)]
        return JsonInput(self[name], schema, errors, reference)


def start_from(bundle: ConfigBundle | None, form: NewConfigBundle) -> dict[str, Any]:
    """Return the form's initial values: those of ``bundle`` except its name; {} if ``bundle`` is None."""
    if bundle is None:
        return {}
    kept = bundle.stage_config if not form.stages else {}
    return {
        "tuning_profile": bundle.tuning_profile,
        "wait": "" if bundle.wait == WAIT_BY_PROFILE[bundle.tuning_profile] else bundle.wait,
        "snapshot_s": bundle.snapshot.get("interval_s") if bundle.snapshot.get("enabled") else None,
        "stage_config": kept or None,
        **{name: bundle.stage_config.get(stage_id) for stage_id, name in form.stages.items()},
        **{name: bundle.adapters.get(name) for name in ("ingress", "egress")},
        "env": bundle.env or None,
    }
