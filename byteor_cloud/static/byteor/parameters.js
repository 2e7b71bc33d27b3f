// Fields for the JSON values of a form, generated from their JSON Schemas. The form still sends the text area, which
// this script changes only when a person changes a field or uses the example. What the fields cannot express is edited
// as JSON, either as a whole or in a small text area. Without this script, people write the JSON text. No library, no
// build.
const schemas = JSON.parse(document.getElementById("parameter-schemas").textContent);
const TYPES = { string: "Text", number: "Number", integer: "Whole number", boolean: "True or false", array: "List" };
const ANY = { oneOf: [{ type: "string" }, { type: "number" }, { type: "boolean" }, {}] };
let made = 0;

// -- values ---------------------------------------------------------------------------------------------------

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function element(name, className, ...content) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...content);
  return node;
}

// Whether a JavaScript number keeps the value of a JSON number.
function isExact(number) {
  const digits = number.replace(/e.*/i, "").replace(/\D/g, "").replace(/^0+/, "");
  return digits.length <= 15 && Number.isFinite(Number(number)) && (Number(number) !== 0 || digits === "");
}

function countKeys(value) {
  if (typeof value !== "object" || value === null) return 0;
  const items = Object.values(value);
  return (Array.isArray(value) ? 0 : items.length) + items.reduce((sum, each) => sum + countKeys(each), 0);
}

// Read the object in a text. Returns { value }, {} if the text is empty, or { refused } with the reason why the fields
// cannot express the text.
function read(text) {
  if (!text.trim()) return {};
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { refused: `The text is not JSON: ${error.message}.` };
  }
  if (!isObject(value)) return { refused: "The text is not a JSON object: {…}." };
  let keys = 0;
  for (const [, key, number] of text.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?|(-?\d[\d.eE+-]*)/g)) {
    if (key) keys += 1;
    if (number && !isExact(number)) return { refused: `Fields would round the number ${number}.` };
  }
  return keys === countKeys(value) ? { value } : { refused: "The text has the same key twice in an object." };
}

function fits(schema, value) {
  if (value === undefined) return true;
  if (schema.enum) return schema.enum.includes(value);
  const types = { string: typeof value === "string", boolean: typeof value === "boolean", array: Array.isArray(value),
    number: typeof value === "number", integer: Number.isInteger(value), object: isObject(value) };
  return types[schema.type] ?? false;
}

function firstValue(schema) {
  if (schema.templates) return blank(Object.values(schema.templates)[0]);
  const type = schema.oneOf ? schema.oneOf[0].type : schema.type;
  return { object: {}, array: [], number: 0, integer: 0, boolean: false }[type] ?? "";
}

// -- fields ---------------------------------------------------------------------------------------------------
// Each function returns a node for a value of the schema, and calls ``change`` with a new value, or with undefined if
// there is none. ``place`` is the JSON Pointer of the value.

function field(schema, value, change, place, title) {
  if (!schema.type && !schema.oneOf && !schema.enum) return jsonText(value, change, place, title);
  if (schema.oneOf) return choice(schema.oneOf, value, change, place, title);
  if (!fits(schema, value)) return jsonText(value, change, place, title, "Fields cannot express this value.");
  if (schema.enum || schema.type === "boolean") return select(schema, value, change, place, title);
  if (schema.templates) return template(schema, value, change, place, title);
  if (schema.type === "array" && schema.items) return list(schema, value, change, place, title);
  if (schema.type === "object" && (schema.properties || isObject(schema.additionalProperties))) return object(schema, value, change, place, title);
  if (["array", "object"].includes(schema.type)) return jsonText(value, change, place, title);
  return input(schema, value, change, place, title);
}

function labeled(control, place, title, help) {
  control.id = `parameter-${(made += 1)}`;
  const label = element("label", "", title);
  label.htmlFor = control.id;
  const node = element("div", "parameter", label, control);
  node.dataset.place = place;
  if (help) {
    const note = element("p", "form-help", help);
    note.id = `${control.id}-help`;
    control.setAttribute("aria-describedby", note.id);
    node.append(note);
  }
  return node;
}

const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}` : "");

function input(schema, value, change, place, title) {
  const control = element("input");
  const isNumber = schema.type !== "string";
  control.type = "text";
  if (isNumber) control.inputMode = "decimal";
  control.value = value ?? "";
  const example = schema.examples?.[0] ?? schema.default;
  if (example !== undefined) control.placeholder = `for example ${example}`;
  control.addEventListener("input", () => {
    const text = control.value.trim();
    if (!isNumber) return change(control.value === "" ? undefined : control.value);
    const isValid = text === "" || (/^-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?$/i.test(text) && (schema.type === "number" || Number.isInteger(Number(text))));
    if (!isValid) control.setCustomValidity(schema.type === "integer" ? "Enter a whole number." : "Enter a number.");
    else control.setCustomValidity(isExact(text) ? "" : "Fields would round this number. Edit it as JSON.");
    if (control.validity.valid) change(text === "" ? undefined : Number(text));
  });
  return labeled(control, place, title, sentence(schema.description));
}

function select(schema, value, change, place, title) {
  const control = element("select");
  const options = schema.enum ?? [true, false];
  control.append(new Option(schema.default === undefined ? "not set" : `default: ${schema.default}`, ""));
  options.forEach((each, index) => control.append(new Option(String(each), index, false, each === value)));
  control.addEventListener("change", () => change(control.value === "" ? undefined : options[control.value]));
  return labeled(control, place, title, sentence(schema.description));
}

function jsonText(value, change, place, title, note) {
  const control = element("textarea", "json");
  control.rows = 3;
  control.spellcheck = false;
  control.value = value === undefined ? "" : JSON.stringify(value, null, 2);
  control.addEventListener("input", () => {
    const { value: found, refused } = read(`{"value": ${control.value.trim() || "0"}}`);
    const error = refused ?? (Object.keys(found).length > 1 ? "Enter only one JSON value." : "");
    control.setCustomValidity(error);
    if (!error) change(control.value.trim() ? found.value : undefined);
  });
  return labeled(control, place, `${title} (JSON)`, note);
}

// A string that is composed of parts by one of several templates, such as "{field}:mask={head}:{tail}:{char}".
const blank = (text) => text.replace(/\{(\w+)\}/g, "");
const partsOf = (text) => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);

function parse(schema, value) {
  for (const text of Object.values(schema.templates)) {
    const pattern = text.replace(/\{(\w+)\}/g, (_, name) => `(?<${name}>(?:${schema.parts[name].pattern})?)`);
    const found = new RegExp(`^${pattern}$`, "su").exec(value);
    if (found) return { text, values: { ...found.groups } };
  }
  return null;
}

function template(schema, value, change, place, title) {
  const found = parse(schema, value ?? firstValue(schema));
  if (!found) return input({ ...schema, templates: null }, value, change, place, title);
  const node = element("div", "fields");
  node.dataset.place = place;
  const values = found.values;
  const compose = () => change(found.text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? ""));
  const render = () => {
    const inputs = partsOf(found.text).map((name) => {
      const part = schema.parts[name];
      return input({ type: "string", examples: part.examples }, values[name], (text) => { values[name] = text ?? ""; compose(); }, `${place}/${name}`, part.title);
    });
    const kind = element("select");
    for (const [label, text] of Object.entries(schema.templates)) kind.append(new Option(label, text, false, text === found.text));
    kind.addEventListener("change", () => {
      found.text = kind.value;
      compose();
      render();
      node.querySelector("select").focus();
    });
    node.replaceChildren(inputs[0], labeled(kind, `${place}/`, "Action"), ...inputs.slice(1));
  };
  render();
  return node;
}

// A value of one of several schemas.
function choice(every, value, change, place, title) {
  const options = [...every];
  const node = element("div", "fields");
  node.dataset.place = place;
  const render = (chosen, value) => {
    const kind = element("select");
    options.forEach((each, index) => {
      const label = each.title ?? TYPES[each.type] ?? (Object.keys(each.properties ?? {}).join(", ") || "JSON");
      kind.append(new Option(label, index, false, each === chosen));
    });
    kind.addEventListener("change", () => {
      const next = options[kind.value];
      const first = next.type ? firstValue(next) : null;
      change(first);
      render(next, first);
      node.querySelector("select").focus();
    });
    node.replaceChildren(labeled(kind, `${place}/`, `Kind of ${title.toLowerCase()}`), field(chosen, value, change, place, title));
  };
  const known = every.find((each) => fits(each, value) && (each.required ?? []).every((key) => key in value)) ?? every.find((each) => !each.type);
  if (!known) options.push({}); // a value that none of the schemas permits
  render(known ?? options.at(-1), value);
  return node;
}

function group(title, help, place) {
  const node = element("fieldset", "nested", element("legend", "", title));
  node.dataset.place = place;
  if (help) node.append(element("p", "form-help", help));
  return node;
}

function actButton(text, label, act) {
  const button = element("button", "choice", text);
  button.type = "button";
  if (label) button.setAttribute("aria-label", label);
  button.addEventListener("click", act);
  return button;
}

// Rows that can be added and removed. ``node(row, index)`` returns the fields of a row.
function rows(items, node, { add, name, added, changed }) {
  const list = element("ol", "rows-of-fields");
  const render = () => {
    list.replaceChildren(...items.map((each, index) => {
      const remove = actButton("Remove", `Remove ${name.toLowerCase()} ${index + 1}`, () => {
        items.splice(index, 1);
        render();
        changed();
        // The focus moves to the next row's button, or to the button that adds a row.
        [...list.querySelectorAll(":scope > li > .choice"), more].at(Math.min(index, items.length)).focus();
      });
      return element("li", "", node(each, index), remove);
    }));
  };
  const more = actButton(add, "", () => {
    items.push(added());
    render();
    changed();
    list.lastElementChild.querySelector("input, select, textarea").focus();
  });
  render();
  return [list, more];
}

function list(schema, value, change, place, title) {
  const node = group(title, sentence(schema.description), place);
  const items = [...(value ?? [])];
  const name = schema.items.title ?? "Item";
  const changed = () => change(items.length ? [...items] : undefined);
  const row = (item, index) => field(schema.items, item, (next) => { items[index] = next ?? firstValue(schema.items); changed(); }, `${place}/${index}`, name);
  node.append(...rows(items, row, { add: `Add ${name.toLowerCase()}`, name, added: () => firstValue(schema.items), changed }));
  return node;
}

const escapePointer = (key) => key.replaceAll("~", "~0").replaceAll("/", "~1");

function object(schema, value, change, place, title) {
  const node = group(title, sentence(schema.description), place);
  const current = { ...value };
  const properties = schema.properties ?? {};
  const isMap = isObject(schema.additionalProperties);
  const fields = element("div", "fields");
  const entries = Object.entries(current).filter(([key]) => !Object.hasOwn(properties, key));
  const changed = () => {
    const known = Object.entries(current).filter(([key, each]) => Object.hasOwn(properties, key) && each !== undefined);
    const next = Object.fromEntries([...known, ...entries]);
    change(Object.keys(next).length ? next : undefined);
  };
  for (const [key, each] of Object.entries(properties)) {
    const isRequired = (schema.required ?? []).includes(key);
    const name = each.title ?? sentence(key.replaceAll("_", " ")).slice(0, -1);
    fields.append(field(each, current[key], (next) => { current[key] = next; changed(); }, `${place}/${escapePointer(key)}`, schema.required && !isRequired ? `${name} (optional)` : name));
  }
  if (fields.children.length) node.append(fields);
  if (!isMap) {
    if (entries.length) {
      const note = element("p", "form-help", "Also set, and editable only as JSON: ", element("code", "", entries.map(([key]) => key).join(", ")), ".");
      node.append(note);
    }
    return node;
  }
  const values = Object.keys(schema.additionalProperties).length ? schema.additionalProperties : ANY;
  const name = values.title ?? (Object.keys(properties).length ? "Parameter" : "Entry");
  const row = (entry, index) => {
    const key = input({ type: "string" }, entry[0], () => {
      const text = key.querySelector("input").value;
      const isTaken = entries.some((each, other) => other !== index && each[0] === text) || Object.hasOwn(properties, text);
      key.querySelector("input").setCustomValidity(!text ? "Enter a name." : isTaken ? "This name is already used." : "");
      if (!text || isTaken) return;
      entry[0] = text;
      changed();
    }, `${place}/${escapePointer(entry[0])}/`, "Name");
    if (!entry[0]) key.querySelector("input").setCustomValidity("Enter a name.");
    const rest = field(values, entry[1], (next) => { entry[1] = next ?? firstValue(values); changed(); }, `${place}/${escapePointer(entry[0])}`, "Value");
    const both = element("div", "entry", key, rest);
    both.dataset.place = `${place}/${escapePointer(entry[0])}`;
    return both;
  };
  node.append(...rows(entries, row, { add: `Add ${name.toLowerCase()}`, name, added: () => ["", firstValue(values)], changed: () => entries.every(([key]) => key) && changed() }));
  return node;
}

// -- one value of the form ------------------------------------------------------------------------------------

function showErrors(fields, errors) {
  for (const error of errors) {
    const { pointer, detail } = error.dataset;
    const places = [fields, ...fields.querySelectorAll("[data-place]")].filter(({ dataset }) => `${pointer}/`.startsWith(`${dataset.place}/`));
    const at = places.reduce((best, each) => (each.dataset.place.length > best.dataset.place.length ? each : best));
    const rest = pointer.slice(at.dataset.place.length + 1);
    const shown = element("p", "form-error", rest ? `${rest}: ${detail}` : detail || error.textContent);
    shown.id = `parameter-${(made += 1)}`;
    shown.setAttribute("role", "alert");
    at.append(shown);
    for (const control of at.matches(".parameter") ? at.querySelectorAll("input, select, textarea") : []) {
      control.setAttribute("aria-invalid", "true");
      control.setAttribute("aria-describedby", [control.getAttribute("aria-describedby"), shown.id].filter(Boolean).join(" "));
    }
  }
}

function enhance(root) {
  const schema = schemas[root.dataset.schema];
  const source = root.querySelector("[data-is=text]");
  const text = source.querySelector("textarea");
  if (!isObject(schema) || !(schema.type === "object" || isObject(schema.properties))) return; // the text remains
  const title = source.querySelector("label").firstChild.textContent.trim();
  const errors = [...source.querySelectorAll(".form-error")];
  const fields = element("div", "generated");
  const status = element("p", "form-help");
  status.setAttribute("role", "status");
  const toggle = actButton("Edit as JSON", `Edit as JSON: ${title}`, () => show(!fields.hidden ? "json" : "fields"));
  const bar = element("div", "json-bar", element("b", "", title), toggle);
  bar.firstChild.setAttribute("aria-hidden", "true"); // the legend or the label names the value to screen readers
  const example = schema.examples?.[0];
  let before = null;
  const useExample = actButton("Use the example", `Use the example: ${title}`, () => {
    before = text.value;
    replace(JSON.stringify(example, null, 2));
    undo.hidden = !before.trim();
    status.textContent = before.trim() ? "The example replaced your values." : "The example is filled in.";
  });
  const undo = actButton("Undo", "", () => { replace(before); undo.hidden = true; status.textContent = ""; toggle.focus(); });
  undo.hidden = true;
  if (example !== undefined) bar.append(useExample);
  bar.append(undo, status);
  source.before(bar, fields);

  function replace(value) {
    text.value = value;
    show(fields.hidden ? "json" : "fields");
  }

  function show(view) {
    const { value, refused } = read(text.value);
    const isJson = view === "json" || Boolean(refused);
    if (view === "json" && fields.querySelector(":invalid")) {
      fields.querySelector("input:invalid, textarea:invalid").reportValidity();
      return;
    }
    fields.hidden = isJson;
    source.hidden = !isJson;
    toggle.textContent = isJson ? "Edit as fields" : "Edit as JSON";
    toggle.setAttribute("aria-label", `${toggle.textContent}: ${title}`);
    status.textContent = view === "fields" && refused ? refused : "";
    fields.replaceChildren();
    if (isJson) return;
    const write = (next) => { text.value = next === undefined ? "" : JSON.stringify(next, null, 2); };
    fields.dataset.place = "";
    fields.append(object(schema, value, write, "", title));
    // An op without parameters needs no JSON either.
    toggle.hidden = !text.value.trim() && !fields.querySelector("input, select, textarea, button");
  }
  try {
    show(read(text.value).refused ? "json" : "fields");
    if (!fields.hidden) showErrors(fields, errors);
  } catch {
    // The schema of a package may be malformed. The text remains.
    bar.remove();
    fields.remove();
    source.hidden = false;
  }
}

document.querySelectorAll(".json-input").forEach(enhance);
