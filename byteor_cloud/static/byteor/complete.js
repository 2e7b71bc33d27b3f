// Completions for the current term of a search field, in the ARIA pattern of a combobox with a listbox. Without this
// script, the field is a plain text field.
"use strict";

for (const field of document.querySelectorAll("input[data-completions]")) complete(field);

function complete(field) {
  const list = document.createElement("ul");
  list.id = `${field.id}-list`;
  list.className = "completions";
  list.hidden = true;
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Completions");
  field.parentElement.append(list);
  const status = document.createElement("p");
  status.className = "sr-only";
  status.setAttribute("role", "status");
  field.parentElement.append(status);
  field.setAttribute("role", "combobox");
  field.setAttribute("aria-autocomplete", "list");
  field.setAttribute("aria-haspopup", "listbox");
  field.setAttribute("aria-controls", list.id);
  field.setAttribute("aria-expanded", "false");
  let waiting = 0, asked = 0, active = -1;

  const show = (found) => {
    list.replaceChildren(...found.map(({ text, note }, at) => {
      const option = document.createElement("li");
      option.id = `${list.id}-${at}`;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", "false");
      option.dataset.text = text;
      option.append(text);
      if (note) option.append(Object.assign(document.createElement("span"), { textContent: note }));
      option.addEventListener("mousedown", (event) => { event.preventDefault(); choose(option); });
      return option;
    }));
    list.hidden = !found.length;
    field.setAttribute("aria-expanded", String(!list.hidden));
    select(-1);
    status.textContent = found.length ? `${found.length} completion${found.length === 1 ? "" : "s"}` : "";
  };
  const hide = () => { clearTimeout(waiting); asked += 1; show([]); };

  const select = (at) => {
    list.children[active]?.setAttribute("aria-selected", "false");
    active = at;
    const option = list.children[at];
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) field.setAttribute("aria-activedescendant", option.id);
    else field.removeAttribute("aria-activedescendant");
  };

  const ask = async () => {
    const number = (asked += 1);
    const url = new URL(field.dataset.completions, location.href);
    url.searchParams.set("text", term(field).text);
    const response = await fetch(url, { headers: { Accept: "application/json" } }).catch(() => null);
    const found = response?.ok ? (await response.json()).completions : [];
    if (number === asked && document.activeElement === field) show(found);
  };

  const choose = (option) => {
    const { start, end } = term(field);
    const text = option.dataset.text;
    const needsValue = /[:=]$/.test(text);
    field.setRangeText(needsValue ? text : `${text} `, start, end, "end");
    hide();
    field.focus();
    if (needsValue) ask();
  };

  field.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(ask, 120); });
  field.addEventListener("blur", hide);
  field.addEventListener("keydown", (event) => {
    const count = list.children.length;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) ask();
      else if (event.key === "ArrowDown") select(active + 1 < count ? active + 1 : 0);
      else select(active > 0 ? active - 1 : count - 1);
    } else if (event.key === "Enter" && active >= 0) {
      event.preventDefault();
      choose(list.children[active]);
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      hide();
    }
  });
}

// The term at the caret. A space within double quotes does not end a term.
function term(field) {
  const before = field.value.slice(0, field.selectionStart);
  let start = 0, quoted = false;
  for (let at = 0; at < before.length; at += 1) {
    if (before[at] === "\\" && quoted) at += 1;
    else if (before[at] === '"') quoted = !quoted;
    else if (before[at] === " " && !quoted) start = at + 1;
  }
  return { start, end: before.length, text: before.slice(start) };
}
