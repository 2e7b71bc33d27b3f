// The plan editor. It compiles the text on the server while a person types, and shows the result. People who may not
// edit the plan see its stored diagnostics. No library, no build.
const LINE_HEIGHT = 20; // px, as in editor.css
const PREVIEW_DELAY = 250; // ms without a change before the text is compiled
const TONES = { error: "bad", warning: "warn", info: "busy" };
const UNREACHABLE = "The server does not respond. Your text stays in this editor.";

const root = document.querySelector(".editor");
const part = Object.fromEntries([...root.querySelectorAll("[data-is]")].map((each) => [each.dataset.is, each]));
const text = part.text;
const mayEdit = !text.readOnly;
// The text as it was last loaded or saved. A person may type before this script runs, so the value may differ already.
let saved = text.defaultValue.replace(/\r\n?/g, "\n");
let revision = root.dataset.revision;
let busy = false;
let errors = Number(root.dataset.errors); // of the plan with its own target, as far as known

// -- requests -------------------------------------------------------------------------------------------------

function csrfToken() {
  // Read the cookie, since the form's field is outdated after a new sign-in in another tab.
  const cookie = document.cookie.split("; ").find((each) => each.startsWith("csrftoken="));
  return cookie ? cookie.slice("csrftoken=".length) : "";
}

async function ask(url, query, body) {
  const headers = { "Content-Type": "application/json", "X-CSRFToken": csrfToken(), Accept: "application/json" };
  const response = await fetch(`${url}?${new URLSearchParams(query)}`, { method: "POST", headers, body }).catch(() => {
    throw new Error(UNREACHABLE);
  });
  if (response.redirected) throw new Error("You are signed out. Sign in again in another tab. Your text stays in this editor.");
  const result = await response.json().catch(() => {
    throw new Error("The server's response cannot be read. Your text stays in this editor.");
  });
  if (!response.ok) throw new Error(result.detail);
  return result;
}

// -- the text -------------------------------------------------------------------------------------------------

function lineStart(line) {
  let start = 0;
  for (; line > 1; line -= 1) start = text.value.indexOf("\n", start) + 1;
  return start;
}

function goTo({ line, column }) {
  const start = lineStart(line);
  const end = text.value.indexOf("\n", start);
  const content = text.value.slice(start, end < 0 ? undefined : end);
  // The compiler counts characters, but the browser counts UTF-16 code units.
  const before = [...content].slice(0, column - 1).join("").length;
  text.focus();
  text.setSelectionRange(start + before, start + content.length);
  text.scrollTop = Math.max(0, (line - 6) * LINE_HEIGHT);
  text.scrollLeft = 0;
}

function scrollMarks() {
  part.gutter.style.transform = part.stripes.style.transform = `translateY(${-text.scrollTop}px)`;
}

let numberedLines = 0;
function showLineNumbers() {
  const count = text.value.split("\n").length;
  if (count === numberedLines) return;
  numberedLines = count;
  part.numbers.textContent = Array.from({ length: count }, (_, index) => index + 1).join("\n");
}

function showCursorPosition() {
  const lines = text.value.slice(0, text.selectionStart).split("\n");
  part.cursor.textContent = `Line ${lines.length}, column ${[...lines.at(-1)].length + 1}`;
}

function showSaveState(message) {
  const changed = text.value !== saved;
  part.saveState.textContent = message ?? (changed ? `Not saved, based on revision ${revision}` : `Saved, revision ${revision}`);
  part.saveState.classList.toggle("changed", changed);
  part.save.disabled = busy || !changed;
  part.promote.disabled = busy || errors > 0;
  part.promote.textContent = changed ? "Save and promote" : "Promote";
  part.reason.textContent = errors ? `Fix ${errors} ${errors === 1 ? "error" : "errors"} first` : "";
}

// -- the compiler's result ------------------------------------------------------------------------------------

function markLines(findings) {
  for (const layer of [part.gutter, part.stripes]) layer.querySelectorAll(".mark").forEach((each) => each.remove());
  const worst = new Map();
  for (const finding of findings) {
    const known = worst.get(finding.line);
    if (!known || finding.severity === "error") worst.set(finding.line, finding);
  }
  for (const [line, { severity, message }] of worst) {
    for (const layer of [part.gutter, part.stripes]) {
      const spot = document.createElement("span");
      spot.className = `mark ${TONES[severity]}`;
      spot.dataset.line = line;
      spot.title = message;
      spot.style.top = `${(line - 1) * LINE_HEIGHT}px`;
      layer.append(spot);
    }
  }
}

function element(name, className, content) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = content;
  return made;
}

function listFindings(findings) {
  const rows = findings.map((finding) => {
    const button = element("button", `finding ${TONES[finding.severity]}`, "");
    button.type = "button";
    const head = element("span", "head", "");
    head.append(
      element("span", `pill ${TONES[finding.severity]}`, finding.severity),
      element("code", "code", finding.code),
      element("span", "line", `line ${finding.line}`),
    );
    button.append(head, element("span", "message", finding.message));
    if (finding.hint) button.append(element("span", "hint", finding.hint));
    button.addEventListener("click", () => goTo(finding));
    const row = document.createElement("li");
    row.append(button);
    return row;
  });
  part.findings.replaceChildren(...rows);
  part.count.textContent = findings.length || "";
  part.nothing.hidden = findings.length > 0;
}

function show(result) {
  markLines(result.diagnostics);
  listFindings(result.diagnostics);
  const found = result.diagnostics.filter((each) => each.severity === "error").length;
  // A plan that is compiled as another target says nothing about the version that a promotion would create.
  errors = part.target.value ? 0 : found;
  showSaveState();
  showReference(part.target.value || result.target);
  part.verdict.className = `verdict pill ${result.ok ? "good" : "bad"}`;
  part.verdict.textContent = result.ok ? "compiles" : `${found} ${found === 1 ? "error" : "errors"}`;
  // If the text does not compile, the last good result stays, dimmed.
  part.results.classList.toggle("stale", !result.ok);
  if (!result.ok) return;
  part.hash.textContent = part.hash.title = result.spec_hash;
  part.kv.textContent = result.spec_kv;
  part.image.hidden = result.svg === null;
  part.undrawn.hidden = result.svg !== null;
  if (result.svg !== null) part.image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(result.svg)}`;
  part.diff.innerHTML = result.diff ?? ""; // HTML of a server template, which escapes values
}

// The reference describes the keys of the target that is compiled, or of both if the plan names none.
function showReference(target) {
  for (const each of root.querySelectorAll("[data-target]")) each.hidden = Boolean(target) && each.dataset.target !== target;
}

let lastRequest = 0;
async function preview() {
  lastRequest += 1;
  const request = lastRequest; // an outdated response is ignored
  try {
    const result = await ask(root.dataset.preview, { target: part.target.value, against: part.against.value }, text.value);
    if (request === lastRequest) show(result);
  } catch (error) {
    if (request !== lastRequest) return;
    part.verdict.className = "verdict pill warn";
    part.verdict.textContent = error.message;
  }
}

let timer;
function changed() {
  showLineNumbers();
  showCursorPosition();
  showSaveState();
  clearTimeout(timer);
  timer = setTimeout(preview, PREVIEW_DELAY);
}

// -- saving and promoting -------------------------------------------------------------------------------------

function notify(tone, ...content) {
  part.notice.className = `notice ${tone}`;
  part.notice.replaceChildren(...content);
  part.notice.hidden = content.length === 0;
}

function choice(label, act) {
  const button = element("button", "choice", label);
  button.type = "button";
  button.addEventListener("click", act);
  return button;
}

function showConflict(theirs) {
  const message = `${theirs.by} saved revision ${theirs.revision} while you edited revision ${revision}. Your text is not saved, but still in this editor.`;
  const details = document.createElement("details");
  details.append(element("summary", "", "Their plan"), element("pre", "", theirs.text));
  const take = choice("Discard mine and load theirs", () => {
    text.value = saved = theirs.text;
    revision = theirs.revision;
    notify("");
    changed();
  });
  const overwrite = choice("Overwrite theirs with mine", () => {
    revision = theirs.revision;
    save();
  });
  notify("warn", element("p", "", message), details, overwrite, take);
}

async function write(progress, url, act) {
  if (busy) return;
  const body = text.value;
  busy = true;
  notify("");
  showSaveState(progress);
  try {
    const result = await ask(url, { revision }, body);
    if (result.outcome === "conflict") showConflict(result);
    else if (result.outcome === "refused") notify("bad", element("p", "", result.detail));
    else act(result, body);
  } catch (error) {
    notify("bad", element("p", "", error.message));
  }
  busy = false;
  showSaveState();
}

function save() {
  return write("Saving…", root.dataset.save, (result, body) => {
    saved = body;
    revision = result.revision;
  });
}

async function promote() {
  if (text.value !== saved) await save();
  if (text.value !== saved) return undefined; // the notice says why the text is not saved
  return write("Promoting…", root.dataset.promote, (result) => {
    if (result.fresh) return location.assign(result.next);
    const message = document.createElement("p");
    const link = element("a", "to", result.version);
    link.href = result.url;
    message.append("The plan has not changed since ", link, ". The next step is its runtime configuration.");
    const next = element("a", "choice", "Create a config bundle");
    next.href = result.next;
    notify("good", message, next);
    next.focus();
    return undefined;
  });
}

// -- the page -------------------------------------------------------------------------------------------------

const tabs = [...root.querySelectorAll("[role=tab]")];
function open(tab) {
  for (const each of tabs) {
    const chosen = each === tab;
    each.setAttribute("aria-selected", chosen);
    each.tabIndex = chosen ? 0 : -1;
    document.getElementById(each.getAttribute("aria-controls")).hidden = !chosen;
  }
}
tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(index + step + tabs.length) % tabs.length];
    next.focus();
    open(next);
  });
});

text.addEventListener("input", changed);
text.addEventListener("scroll", scrollMarks);
document.addEventListener("selectionchange", () => document.activeElement === text && showCursorPosition());
text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.ctrlKey || event.metaKey || event.isComposing || !mayEdit) return;
  // Indent the next line like this one. insertText keeps the browser's undo history.
  const start = text.value.lastIndexOf("\n", text.selectionStart - 1) + 1;
  const indent = /^ */.exec(text.value.slice(start, text.selectionStart))[0];
  event.preventDefault();
  document.execCommand("insertText", false, `\n${indent}`);
});
if (mayEdit) {
  part.target.addEventListener("change", preview);
  part.against.addEventListener("change", preview);
  part.save.addEventListener("click", save);
  part.promote.addEventListener("click", promote);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "s" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    if (text.value !== saved) save();
  });
  window.addEventListener("beforeunload", (event) => text.value !== saved && event.preventDefault());
}
showLineNumbers();
showCursorPosition();
if (mayEdit) {
  open(tabs[0]);
  showSaveState();
  preview();
}
