"""``make schema``: write the typed client in byteor/client/ from docs/openapi.yaml. ``--check`` compares the files.

datamodel-code-generator writes the models as msgspec structs. This script writes one class for each level of the paths,
with methods for the operations. The blocking files are the asynchronous ones without ``async`` and ``await``.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

type Json = dict[str, Any]
type Classes = dict[str, ast.ClassDef]
ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "byteor" / "client"
WRITTEN = "# Written by tests/clients/write_client.py from {}. Do not edit: run `make schema`.\n"
# The server validates requests. The client keeps unknown values of enumerations, so it reads them as plain strings.
BOUNDS = {
    "minLength", "maxLength", "pattern", "minimum", "maximum", "minItems", "maxItems", "uniqueItems", "minProperties",
    "maxProperties", "example", "examples", "enum", "const", "title", "propertyNames", "oneOf",
}  # fmt: skip
OPTIONS = (
    "--input-file-type openapi --output-model-type msgspec.Struct --base-class byteor.client.model.Model --keyword-only"
    " --target-python-version 3.12 --use-standard-collections --use-union-operator --collapse-root-models"
    " --output-datetime-class datetime --use-schema-description --use-field-description"
    " --formatters builtin --disable-timestamp"
)
# For each class: the path with which its operations begin, and a part of its docstring. The longest path applies.
LEVELS = {
    "Environment": ("/api/v1/orgs/{org_id}/projects/{project_id}/environments/{env_id}", "of an environment"),
    "Project": ("/api/v1/orgs/{org_id}/projects/{project_id}", "of a project"),
    "Organization": ("/api/v1/orgs/{org_id}", "of an organization"),
    "OwnAgent": ("/api/v1/agents/{id}", "that an agent calls with its own key"),
    "Installation": ("", "outside of organizations"),
}
METHODS = ("get", "post", "put", "patch", "delete")
KINDS = {"integer": "int", "boolean": "bool", "string": "str", "array": "list[str]"}
STREAMED = {"application/x-tar", "application/octet-stream", "application/x-ndjson"}
# The replacements that turn an asynchronous file into a blocking one.
BLOCKING = {
    r"\basync (?=def |for |with )|\bawait (?=self\.|response\.|asyncio\.)|\bAsync(?=[A-Z])|\basync_": "",
    r"\basynccontextmanager\b": "contextmanager",
    r"\basyncio\b": "time",
    r"\b(_*)a(?=(?:read|iter_bytes|close|(?:iter|enter|exit)__)\b)": r"\1",
}
HEAD = '''"""The operations of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byteor.client.async_runtime import AsyncCalls
from byteor.client.request import OMITTED, Omitted, given, quoted

if TYPE_CHECKING:
    from datetime import datetime

    from byteor.client import models as m
    from byteor.client.async_runtime import AsyncDownload, AsyncPages
    from byteor.client.request import Upload
'''


def program(name: str) -> str:
    """Return the path of a program in this Python's environment."""
    return str(Path(sys.executable).with_name(name))


def fill(text: str, width: int, **options: Any) -> str:
    """Wrap the text, but not at hyphens, since it contains names. Double its backslashes."""
    filled = textwrap.fill(" ".join(text.split()), width, break_on_hyphens=False, **options)
    return filled.replace("\\", "\\\\")


def docstring(text: str, width: int, *more: str) -> str:
    """Return the paragraphs of a text, and more lines, as a docstring."""
    paragraphs = [fill(each, width) for each in f'"""{text.strip()}'.split("\n\n")]
    whole = "\n".join(["\n\n".join(paragraphs), *more])
    return f'{whole}\n"""' if len(paragraphs) > 1 or more else f'{whole}"""'


def blocking(source: str) -> str:
    """Return the asynchronous source as blocking source."""
    for found, instead in BLOCKING.items():
        source = re.sub(found, instead, source)
    return source


def without_bounds(node: Any, *, names: bool = False) -> Any:
    """Return the schema in a simpler form, without the rules that only the server applies.

    ``names`` says that the keys of the schema are names of properties or schemas.
    """
    if isinstance(node, list):
        return [without_bounds(each) for each in node]
    if not isinstance(node, dict):
        return node
    if not names and "type" not in node and ("enum" in node or "const" in node):
        node = {**node, "type": "string" if None not in node.get("enum", ()) else ["string", "null"]}
    # A struct cannot represent "a plan, or any other object", so the client accepts any object.
    if {"type": "object"} in node.get("anyOf", ()):
        node = {**node, "anyOf": [each for each in node["anyOf"] if "$ref" not in each]}
    # A struct would lose the members that the schema does not name, such as the parameters of an adapter.
    if not names and node.get("type") == "object" and node.get("additionalProperties") == {}:
        node = {key: value for key, value in node.items() if key not in {"properties", "required"}}
    # Any JSON value: as a union of types, whole numbers would become floats.
    if not names and {"object", "array", "string", "number"} <= set(node.get("type", ())):
        node = {key: value for key, value in node.items() if key not in {"type", "items"}}
    dropped = BOUNDS if "type" in node else BOUNDS - {"oneOf"}
    kept = {key: value for key, value in node.items() if names or key not in dropped}
    return {key: without_bounds(value, names=key in {"properties", "schemas"}) for key, value in kept.items()}


class _Plain(ast.NodeTransformer):
    """Replaces ``Annotated[T, …]`` with ``T``, since the descriptions are docstrings of the fields."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if ast.unparse(node.value) == "Annotated" and isinstance(node.slice, ast.Tuple):
            return node.slice.elts[0]
        return node


def models(document: Json) -> tuple[str, Classes]:
    """Return the imports of the models, and the msgspec structs for the document's schemas, by name."""
    schemas = without_bounds(document["components"]["schemas"], names=True)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "openapi.json"), Path(folder, "models.py")
        source.write_text(json.dumps({**document, "paths": {}, "components": {"schemas": schemas}, "webhooks": {}}))
        command = [program("datamodel-codegen"), "--input", str(source), "--output", str(target), *OPTIONS.split()]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        lines = _Plain().visit(ast.parse(target.read_text())).body
    imports = [ast.unparse(each) for each in lines if isinstance(each, ast.Import | ast.ImportFrom)]
    return "\n".join(imports), {each.name: each for each in lines if isinstance(each, ast.ClassDef)}


def models_source(imports: str, classes: Classes, used: str) -> str:
    """Return the source of the models that ``used`` names, and of all models that they contain."""
    names = {""}
    while found := (set(re.findall(r"\w+", used)) & classes.keys()) - names:
        names |= found
        parts = [each for name in found for each in (*classes[name].bases, *classes[name].body)]
        used = " ".join(ast.unparse(each) for each in parts if not isinstance(each, ast.Expr))
    lines = ['"""The resources of the API, and the values in requests."""', imports]
    for node in (each for name, each in classes.items() if name in names):
        lines.append(f"class {node.name}({', '.join(map(ast.unparse, [*node.bases, *node.keywords]))}):")
        for line in node.body:
            text = docstring(ast.literal_eval(line.value), 112) if isinstance(line, ast.Expr) else ast.unparse(line)
            lines.append(textwrap.indent(text, "    "))
    return "\n".join(lines)


@dataclass(frozen=True)
class Argument:
    """A keyword argument of a method. ``name`` is the name in the request. Required ones have no default."""

    name: str
    annotation: str
    default: str
    about: str

    @property
    def python(self) -> str:
        """The name in Python."""
        plain = re.sub(r"\W", "_", self.name).lower()
        return f"{plain}_" if keyword.iskeyword(plain) else plain

    @property
    def sent(self) -> str:
        """The item in the request. None stands for an omitted field, unless the field may be null."""
        return f"{self.name!r}: " + (f"given({self.python})" if self.default == "None" else self.python)

    def __str__(self) -> str:
        return f"{self.python}: {self.annotation}" + (f" = {self.default}" if self.default else "")


def fields_of(node: ast.ClassDef, schema: Json, classes: Classes) -> Iterator[Argument]:
    """Yield an argument for each field of the model, except for read-only fields."""
    for line in node.body:
        if not isinstance(line, ast.AnnAssign):
            continue
        options = line.value.keywords if isinstance(line.value, ast.Call) else []
        name = next((ast.literal_eval(each.value) for each in options if each.arg == "name"), ast.unparse(line.target))
        about = schema["properties"][name].get("description", "")
        if about.startswith("Read-only."):
            continue  # an update may contain it, so that a response can be sent back, but the server ignores it
        kinds = ast.unparse(line.annotation).split(" | ")
        is_required, may_be_null = name in schema.get("required", ()), "None" in kinds
        kinds = [re.sub(r"\w+", lambda found: f"m.{found[0]}" if found[0] in classes else found[0], kind)
                 for kind in kinds if kind not in {"UnsetType", "None"}]  # fmt: skip
        if schema["properties"][name].get("format") == "binary":
            kinds = ["Upload"]
        kinds += ["Omitted"] * (may_be_null and not is_required) + ["None"] * (may_be_null or not is_required)
        yield Argument(name, " | ".join(kinds), "" if is_required else "OMITTED" if may_be_null else "None", about)


@dataclass(frozen=True)
class Operation:
    """An operation of the document."""

    verb: str
    path: str
    level: str
    declared: Json
    document: Json
    classes: Classes

    def parameters(self, place: str) -> list[Argument]:
        """Return the parameters in the query or in a header."""
        shared = self.document["components"]["parameters"]
        declared = [shared.get(p.get("$ref", "").rsplit("/", 1)[-1], p) for p in self.declared.get("parameters", ())]
        found = [(each, KINDS[each["schema"].get("type", "string")]) for each in declared if each["in"] == place]
        return [
            Argument(each["name"], kind, "", each.get("description", ""))
            if each.get("required")
            else Argument(each["name"], f"{kind} | None", "None", each.get("description", ""))
            for each, kind in found
        ]

    def body(self) -> tuple[str, list[Argument]]:
        """Return the media type of the request's body, and its fields. Both are empty if there is no body."""
        for media, content in self.declared.get("requestBody", {}).get("content", {}).items():
            name = content["schema"]["$ref"].rsplit("/", 1)[1]
            schema = self.document["components"]["schemas"][name]
            return media, list(fields_of(self.classes[name], schema, self.classes))
        return "", []

    def responses(self) -> dict[str, list[str]]:
        """Return the names of the models of successful responses, by media type. Without content, the type is empty."""
        found: dict[str, list[str]] = {}
        for status, response in self.declared["responses"].items():
            for media, content in response.get("content", {}).items() if status.startswith("2") else ():
                name = content["schema"].get("$ref", "").rsplit("/", 1)[-1]
                found[media] = list(dict.fromkeys([*found.get(media, []), *filter(None, [name])]))
        return found or {"": []}

    def methods(self) -> Iterator[str]:
        """Yield the source of a method for each media type of the response."""
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", self.declared["operationId"]).lower()
        responses = self.responses()
        for media, names in responses.items():
            is_second = media in STREAMED and len(responses) > 1
            yield self.method(f"{name}_content" if is_second else name, media, names)

    def method(self, name: str, media: str, models: list[str]) -> str:
        """Return the source of a method."""
        schema = self.document["components"]["schemas"][models[0]] if models else {}
        content, call, wait = "|".join(models) or ("json" if media == "application/json" else ""), "_call", "await "
        kind = " | ".join(f"m.{each}" for each in models)
        kind = kind or {"": "None", "application/json": "dict[str, Any]"}.get(media, "str")
        if "next_cursor" in schema.get("properties", {}):
            item = schema["properties"]["results"]["items"]["$ref"].rsplit("/", 1)[1]
            kind, call, wait = f"AsyncPages[m.{item}]", "_pages", ""
        elif media in STREAMED:
            kind, call, wait = "AsyncDownload", "_download", ""
        query, (sent, fields) = self.parameters("query"), self.body()
        headers = [each for each in self.parameters("header") if each.name in {"If-Match", "Idempotency-Key"}]
        arguments = sorted([*fields, *query, *headers], key=lambda each: bool(each.default))
        path = self.path.removeprefix(LEVELS[self.level][0])
        ids = [f"{each}: str" for each in re.findall(r"\{(\w+)\}", path)]
        taken = ["self", *ids, *["*"] * bool(arguments), *map(str, arguments)]
        passed = [repr(self.verb.upper()), f'f"{{self._path}}{quoting(path)}"', repr(content)]
        for part, found in (("query", query), ("fields" if "json" in sent else "form", fields), ("headers", headers)):
            passed += [f"{part}={{{', '.join(each.sent for each in found)}}}"] if found else []
        start = "async def" if wait else "def"
        return (
            f"{start} {name}({', '.join(taken)}) -> {kind}:\n{textwrap.indent(self.about(arguments), '    ')}\n"
            f"    found: {kind} = {wait}self.{call}({', '.join(passed)})\n    return found\n"
        )

    def about(self, arguments: list[Argument]) -> str:
        """Return the docstring of a method."""
        text = f"{self.declared['summary'].rstrip('.')}.\n\n{self.declared.get('description', '')}"
        described = [f"{each.python}: {each.about}" for each in arguments if each.about]
        lines = [fill(each, 104, initial_indent="    ", subsequent_indent="        ") for each in described]
        return docstring(text, 108, *(["", "Args:", *lines] if lines else []))


def quoting(path: str) -> str:
    """Return the path as the content of an f-string that quotes each parameter."""
    return re.sub(r"\{(\w+)\}", r"{quoted(\1)}", path)


def resources(document: Json, classes: Classes) -> str:
    """Return the source of the asynchronous classes, with methods for all operations."""
    parts = {level: [f'class Async{level}(AsyncCalls):\n    """The operations {about}."""\n']
             for level, (_, about) in LEVELS.items()}  # fmt: skip
    for level, (start, _) in LEVELS.items():
        if ids := re.findall(r"\{(\w+)\}", start):
            parts[level].append(
                f"    def __init__(self, calls: AsyncCalls, {', '.join(f'{each}: str' for each in ids)}) -> None:\n"
                f'        super().__init__(calls)\n        self._path = f"{quoting(start)}"\n'
            )
    for path, item in document["paths"].items():
        level = next(name for name, (start, _) in LEVELS.items() if path.startswith(start))
        for verb in (each for each in METHODS if each in item):
            found = Operation(verb, path, level, item[verb], document, classes)
            parts[level] += [textwrap.indent(each, "    ") for each in found.methods()]
    return "\n".join([HEAD, *(part for level in parts.values() for part in level)])


def main() -> int:
    """Write the files. With ``--check``, compare them instead, and return 1 if they differ."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: Json = yaml.load((ROOT / "docs/openapi.yaml").read_text(), Loader=loader)
    imports, classes = models(document)
    operations = resources(document, classes)
    used = " ".join(re.findall(r"\bm\.\w+|'[\w|]+'", operations))  # in annotations, and in calls
    texts = {
        "models.py": ("docs/openapi.yaml", models_source(imports, classes, used)),
        "async_resources.py": ("docs/openapi.yaml", operations),
        "resources.py": ("docs/openapi.yaml", blocking(operations)),
        "runtime.py": ("async_runtime.py", blocking((TARGET / "async_runtime.py").read_text())),
        "client.py": ("async_client.py", blocking((TARGET / "async_client.py").read_text())),
    }
    different = []
    for name, (source, text) in texts.items():
        formatted = WRITTEN.format(source) + text
        for command in ("check --quiet --fix --unsafe-fixes --select I,F401,RUF036,SIM117,UP028 --exit-zero", "format"):
            ruff = [program("ruff"), *command.split(), "--stdin-filename", str(TARGET / name), "-"]
            formatted = subprocess.run(ruff, input=formatted, text=True, capture_output=True, check=True).stdout
        if not (TARGET / name).exists() or (TARGET / name).read_text() != formatted:
            different.append(name)
            if "--check" not in sys.argv:
                (TARGET / name).write_text(formatted)
    if different and "--check" in sys.argv:
        print(f"Out of date in byteor/client: {', '.join(different)}. Run make schema.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
