// Completions in the plan editor: keys and choices from the plan's schema, ops, and the names in the plan. The text area
// keeps the focus and names the active option, as in the ARIA pattern of a listbox popup. No library, no build.
const { schema, ops } = JSON.parse(document.getElementById("plan-completions").textContent);
const text = document.getElementById("text");
const LINE_HEIGHT = 20; // px, as in editor.css
const MOST = 50; // options

// -- where the caret is ---------------------------------------------------------------------------------------

const STRING = /"((?:[^"\\\n]|\\.)*)("?)/y;
const WORD = /[\w.+-]+/y;

// Read JSON that may be incomplete. Returns the strings that are values, with their paths, and the state at the end.
function scan(source) {
  const frames = [];
  const strings = [];
  let open = null; // the start of a string or word that reaches the end
  const top = () => frames.at(-1);
  const path = () => frames.map((each) => (each.isArray ? each.index : each.key));
  for (let at = 0; at < source.length; at += 1) {
    const sign = source[at];
    const frame = top();
    if (sign === '"') {
      STRING.lastIndex = at;
      const [found, value, end] = STRING.exec(source);
      if (!end && at + found.length >= source.length) open = { start: at, quoted: true };
      if (frame && !frame.isArray && !frame.hasKey) frame.pending = value;
      else strings.push({ path: path(), value });
      at += found.length - 1;
    } else if (/[\w.+-]/.test(sign)) {
      WORD.lastIndex = at;
      const [word] = WORD.exec(source);
      if (at + word.length >= source.length) open = { start: at, quoted: false };
      at += word.length - 1;
    } else if (sign === "{") frames.push({ isArray: false, key: null, hasKey: false, keys: [] });
    else if (sign === "[") frames.push({ isArray: true, index: 0 });
    else if (sign === "}" || sign === "]") frames.pop();
    else if (sign === ":" && frame && !frame.isArray) {
      frame.key = frame.pending;
      frame.keys.push(frame.key);
      frame.hasKey = true;
    } else if (sign === "," && frame) {
      if (frame.isArray) frame.index += 1;
      else frame.hasKey = false;
    }
  }
  return { strings, open, frame: top(), path: path() };
}

// Describe the token at the caret: its start, its end, its path, and more. Returns null outside of the plan's object.
function place() {
  const caret = text.selectionStart;
  const source = text.value;
  const { open, frame, path } = scan(source.slice(0, caret));
  if (!frame) return null;
  const start = open?.start ?? caret;
  const rest = (open?.quoted ? /^[\w:./|-]*"/ : /^[\w.+-]*/).exec(source.slice(caret))?.[0] ?? "";
  const end = caret + rest.length;
  const isKey = !frame.isArray && !frame.hasKey;
  return {
    start, end, isKey, path: isKey ? path.slice(0, -1) : path, quoted: open?.quoted ?? false,
    typed: source.slice(start + (open?.quoted ? 1 : 0), caret),
    hasColon: /^\s*:/.test(source.slice(end, end + 100)),
    keys: () => [...frame.keys, ...keysAfter(source.slice(end))],
    strings: () => scan(`${source.slice(0, start)}""${source.slice(end)}`).strings,
  };
}

function keysAfter(source) {
  const keys = [];
  let depth = 0;
  for (const [token, key] of source.matchAll(/"((?:[^"\\\n]|\\.)*)"(?=\s*:)|"(?:[^"\\\n]|\\.)*"|[[\]{}]/g)) {
    if (key !== undefined && depth === 0) keys.push(key);
    if ("[{".includes(token)) depth += 1;
    if ("]}".includes(token)) depth -= 1;
    if (depth < 0) break;
  }
  return keys;
}

function schemaAt(path) {
  return path.reduce((each, part) => (typeof part === "number" ? each?.items : (each?.properties?.[part] ?? each?.additionalProperties)), schema) || {};
}

// -- what is allowed there ------------------------------------------------------------------------------------

const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}` : "");

function names(strings, target, ...parts) {
  return strings.filter(({ path }) => path[0] === target && parts.includes(path[1]) && (path[1] !== "stages" || path[3] === "id")).map(({ value, path }) => ({
    text: value, note: path[1] === "stages" ? "Stage" : sentence(path[1]), stage: path[2],
  })).filter((each) => each.text);
}

function options(at) {
  const here = schemaAt(at.path);
  if (at.isKey) {
    const used = at.keys();
    const free = Object.entries(here.properties ?? {}).filter(([key]) => !used.includes(key));
    return free.map(([key, each]) => ({ text: key, note: sentence(each.description), value: each }));
  }
  const [target, part, index, field] = at.path;
  if (part === "stages" && field === "op") return ops;
  if (field === "depends_on" && at.path.length === 5) {
    const strings = at.strings();
    const used = strings.filter(({ path, value }) => value && path.slice(0, 4).join() === at.path.slice(0, 4).join()).map(({ value }) => value);
    return names(strings, target, "stages").filter((each) => each.stage < index && !used.includes(each.text));
  }
  if (part === "connections" && field === "from") return names(at.strings(), target, "ingress", "stages");
  if (part === "connections" && field === "to") return names(at.strings(), target, "stages", "egress");
  if (here.enum) return here.enum.map((each) => ({ text: each, note: each === here.default ? "Default" : "" }));
  if (here.default !== undefined && here.type === "integer") return [{ text: String(here.default), note: "Default", isNumber: true }];
  return [];
}

function matching(at) {
  const typed = at.typed.toLowerCase();
  const found = options(at).filter((each) => each.text.toLowerCase().includes(typed));
  found.sort((one, other) => other.text.toLowerCase().startsWith(typed) - one.text.toLowerCase().startsWith(typed));
  return found.length === 1 && found[0].text === at.typed ? [] : found.slice(0, MOST);
}

// -- the list -------------------------------------------------------------------------------------------------

const list = document.createElement("ul");
list.id = "plan-options";
list.className = "plan-options";
list.hidden = true;
list.setAttribute("role", "listbox");
list.setAttribute("aria-label", "Completions");
const status = Object.assign(document.createElement("p"), { className: "sr-only" });
status.setAttribute("role", "status");
text.closest(".code").append(list, status);
text.setAttribute("aria-autocomplete", "list");
text.setAttribute("aria-haspopup", "listbox");
text.setAttribute("aria-controls", list.id);
const ruler = document.createElement("canvas").getContext("2d");
let at = null, found = [], active = 0;

function hide() {
  list.hidden = true;
  found = [];
  text.removeAttribute("aria-activedescendant");
  status.textContent = "";
}

function choose(index) {
  list.children[active]?.setAttribute("aria-selected", "false");
  active = (index + found.length) % found.length;
  const option = list.children[active];
  option.setAttribute("aria-selected", "true");
  option.scrollIntoView({ block: "nearest" });
  text.setAttribute("aria-activedescendant", option.id);
}

function show(asked) {
  at = text.selectionStart === text.selectionEnd ? place() : null;
  found = at && (asked || at.quoted || at.typed) ? matching(at) : [];
  if (!found.length) return hide();
  list.replaceChildren(...found.map((each, index) => {
    const option = document.createElement("li");
    option.id = `${list.id}-${index}`;
    option.setAttribute("role", "option");
    option.setAttribute("aria-selected", "false");
    option.append(Object.assign(document.createElement("code"), { textContent: each.text }));
    if (each.note) option.append(Object.assign(document.createElement("span"), { textContent: each.note }));
    option.addEventListener("mousedown", (event) => { event.preventDefault(); active = index; accept(); });
    return option;
  }));
  list.hidden = false;
  active = 0;
  choose(0);
  status.textContent = `${found.length} ${found.length === 1 ? "completion" : "completions"}`;
  move();
}

// Put the list below the start of the token, or above it if there is no space below.
function move() {
  const lineStart = text.value.lastIndexOf("\n", at.start - 1) + 1;
  const line = text.value.slice(0, at.start).split("\n").length - 1;
  const style = getComputedStyle(text);
  ruler.font = style.font;
  const box = text.closest(".code").getBoundingClientRect();
  const paper = text.getBoundingClientRect();
  const left = paper.left - box.left + parseFloat(style.paddingLeft) + ruler.measureText(text.value.slice(lineStart, at.start)).width - text.scrollLeft;
  const top = parseFloat(style.paddingTop) + line * LINE_HEIGHT - text.scrollTop;
  const below = top + LINE_HEIGHT + list.offsetHeight <= box.height || top < list.offsetHeight;
  list.style.left = `${Math.max(4, Math.min(left, box.width - list.offsetWidth - 4))}px`;
  list.style.top = `${below ? top + LINE_HEIGHT : top - list.offsetHeight}px`;
}

const FIRST = { string: '""', object: "{}", array: "[]" };

function accept() {
  const option = found[active];
  const after = at.isKey && !at.hasColon ? `: ${FIRST[option.value.type] ?? ""}` : "";
  text.setSelectionRange(at.start, at.end);
  hide();
  document.execCommand("insertText", false, (option.isNumber ? option.text : JSON.stringify(option.text)) + after);
  if (!after) return hide();
  // Continue within the quotes or brackets of the new key's value.
  if (FIRST[option.value.type]) text.setSelectionRange(text.selectionStart - 1, text.selectionStart - 1);
  show(true);
}

text.addEventListener("input", (event) => !event.isComposing && show(false));
text.addEventListener("blur", hide);
text.addEventListener("scroll", () => list.hidden || move());
addEventListener("resize", () => list.hidden || move());
document.addEventListener("selectionchange", () => {
  // The caret left the token by a click or an arrow key.
  if (!list.hidden && (text.selectionStart < at.start || text.selectionStart > at.end)) hide();
});
text.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === " " && event.ctrlKey) show(true);
  else if (list.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === "ArrowDown") choose(active + 1);
  else if (event.key === "ArrowUp") choose(active - 1);
  else if (event.key === "Escape") hide();
  else if ((event.key === "Enter" || event.key === "Tab") && !event.shiftKey) accept();
  else return;
  event.preventDefault();
  event.stopImmediatePropagation(); // Enter would also start a new line
});
