// The dialog of the global search, scrolling of boxes by keyboard, and buttons that copy a text.
"use strict";

addEventListener("DOMContentLoaded", () => {
  const dialog = document.getElementById("search");
  if (dialog) search(dialog);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copies]");
    if (button) copy(button);
  });

  // Make a box focusable if it scrolls and contains nothing that can be focused.
  const BOXES = ".scroll, .drawing, .unified, .kv, .dump, .readonly, pre, .overflow-x-auto";
  const mark = () => {
    for (const box of document.querySelectorAll(BOXES)) {
      const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
      if (!scrolls || box.hasAttribute("tabindex") || getComputedStyle(box).overflowX === "visible") continue;
      if (box.querySelector("a[href], button, input, select, textarea")) continue;
      box.tabIndex = 0;
      box.dataset.scrolls = "yes"; // so that live.js keeps these attributes
      if (!box.hasAttribute("aria-label") && !box.matches("pre")) {
        box.setAttribute("role", "region");
        const heading = box.closest(".panel")?.querySelector("h2")?.firstChild?.textContent.trim();
        box.setAttribute("aria-label", heading || document.title);
      }
    }
  };
  let waiting = 0;
  const soon = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(mark); };
  mark();
  addEventListener("resize", soon);
  new MutationObserver(soon).observe(document.body, { childList: true, characterData: true, subtree: true });
});

async function copy(button) {
  const source = document.getElementById(button.dataset.copies);
  getSelection().selectAllChildren(source); // so that the person can copy the text if the browser refuses
  // On most pages without TLS, browsers provide no navigator.clipboard.
  const written = navigator.clipboard?.writeText(source.textContent).then(() => true, () => false);
  const isCopied = (await written) || document.execCommand("copy");
  button.parentElement.querySelector("[role=status]").textContent = isCopied ? "Copied" : "Press Ctrl+C to copy.";
}

function search(dialog) {
  const input = dialog.querySelector("input");
  const results = document.getElementById("search-results");
  const note = dialog.querySelector(".search-note");
  const options = () => [...results.querySelectorAll("[role=option]")];
  let chosen = -1, timer = 0, request = null, shown = null;
  let kept = null; // the URL of the option that an arrow key chose; the option stays chosen when a later response arrives

  function choose(index) {
    const all = options();
    chosen = all.length ? (index + all.length) % all.length : -1;
    all.forEach((option, place) => option.setAttribute("aria-selected", String(place === chosen)));
    if (chosen < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", all[chosen].id);
    all[chosen].scrollIntoView({ block: "nearest" });
  }

  async function find() {
    const text = input.value;
    let refused = null;
    clearTimeout(timer);
    request?.abort();
    request = new AbortController();
    try {
      const response = await fetch(`${dialog.dataset.url}?s=${encodeURIComponent(text)}`, { signal: request.signal });
      if (response.redirected) return location.reload(); // signed out
      if (response.status === 429) {
        const seconds = Number(response.headers.get("Retry-After"));
        refused = `${(await response.json()).title}. Search again in ${seconds} ${seconds === 1 ? "second" : "seconds"}.`;
      }
      if (!response.ok) throw new Error(response.statusText);
      results.innerHTML = await response.text(); // HTML of a server template, which escapes values
      note.textContent = results.firstElementChild.dataset.note;
    } catch (error) {
      if (error.name === "AbortError") return;
      results.replaceChildren();
      note.textContent = refused ?? "The search failed. Try again.";
    }
    shown = text;
    results.hidden = !options().length;
    input.setAttribute("aria-expanded", String(!results.hidden));
    choose(Math.max(0, options().findIndex((option) => option.href === kept)));
  }

  function open() {
    if (dialog.open) return;
    const page = window.Alpine?.$data(document.documentElement);
    if (page && innerWidth <= 1280) page.sidebarOpen = false; // the open menu would keep the focus
    dialog.showModal();
    kept = null;
    input.select();
    find();
  }

  addEventListener("keydown", (event) => {
    const asked = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k";
    if (!asked) return;
    event.preventDefault();
    event.stopImmediatePropagation(); // the theme has its own handler for these keys
    open();
  }, { capture: true });
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-search]")) open();
    // A click outside of the dialog's box has the dialog itself as its target.
    if (event.target === dialog || event.target.closest("#search [data-close]")) dialog.close();
  });
  input.addEventListener("input", () => { kept = null; clearTimeout(timer); timer = setTimeout(find, 150); });
  input.addEventListener("keydown", async (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      choose(chosen + (event.key === "ArrowDown" ? 1 : -1));
      kept = options()[chosen]?.href;
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (shown !== input.value) await find();
      options()[chosen]?.click();
    }
  });
}
