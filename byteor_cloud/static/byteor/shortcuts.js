// The keyboard shortcuts, and the dialog that lists them. Ctrl+K is in console.js.
"use strict";

addEventListener("DOMContentLoaded", () => {
  const SWITCH = "byteor-shortcuts"; // "off" in localStorage if the person switched the single-key shortcuts off
  const SEQUENCE = 1500; // ms in which the second key of a sequence must follow
  const THEME_KEYS = ["/", "?", "[", "f", "c"]; // the theme has its own handlers for these keys
  const dialog = document.getElementById("shortcuts");
  if (!dialog) return;
  const box = dialog.querySelector("[type=checkbox]");
  let isOn = true, wentAt = -SEQUENCE; // when "g" was pressed

  try { isOn = localStorage.getItem(SWITCH) !== "off"; } catch { /* The browser stores nothing. */ }
  box.checked = isOn;
  box.addEventListener("change", () => {
    isOn = box.checked;
    try { localStorage.setItem(SWITCH, isOn ? "on" : "off"); } catch { /* It applies until the page closes. */ }
  });

  const open = () => dialog.open || dialog.showModal();
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-shortcuts]")) open();
    // A click outside of the dialog's box has the dialog itself as its target.
    if (event.target === dialog || event.target.closest("#shortcuts [data-close]")) dialog.close();
  });

  function move(step) {
    const rows = [...document.querySelectorAll("#result_list tbody tr")].filter((row) => row.querySelector("a[href]"));
    if (!rows.length) return false;
    const at = rows.findIndex((row) => row.contains(document.activeElement));
    const next = at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + step, 0), rows.length - 1);
    rows[next].querySelector("a[href]").focus();
    return true;
  }

  const press = (selector) => { const found = document.querySelector(selector); found?.click(); return Boolean(found); };
  const KEYS = {
    "/": () => press("[data-search]"),
    "?": () => { open(); return true; },
    "[": () => press(".frame-menu[aria-expanded]"),
    j: () => move(1),
    k: () => move(-1),
    g: () => { wentAt = performance.now(); return true; },
  };

  addEventListener("keydown", (event) => {
    const hasModifier = event.ctrlKey || event.metaKey || event.altKey;
    // The theme would switch between light and dark; the key belongs to the browser.
    if ((event.ctrlKey || event.metaKey) && event.key === "e") return event.stopImmediatePropagation();
    if (hasModifier || event.isComposing || event.repeat && event.key === "g") return;
    if (event.target.closest?.("input, textarea, select, [contenteditable], [role=listbox], dialog")) return;
    if (THEME_KEYS.includes(event.key)) event.stopImmediatePropagation();
    if (!isOn || event.key.length !== 1 || document.querySelector("dialog[open]")) return;
    const isSecond = performance.now() - wentAt < SEQUENCE;
    wentAt = -SEQUENCE;
    const page = isSecond && dialog.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (page) location.assign(page.href);
    if (page || Object.hasOwn(KEYS, event.key) && KEYS[event.key]()) event.preventDefault();
  }, { capture: true });
});
