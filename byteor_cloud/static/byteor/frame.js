// Close the menus of the switcher on Escape, and on a click outside of them.
const openMenu = () => document.querySelector(".switch[open]");
addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && openMenu();
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});
addEventListener("click", (event) => {
  const menu = openMenu();
  if (menu && !menu.contains(event.target)) menu.open = false;
});

// Follow the system's color scheme without a reload if the person chose the theme "System". The theme computes its class
// only when its value changes, so change the value twice.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  const page = window.Alpine?.$data(document.documentElement);
  if (page?.adminTheme !== "auto") return;
  page.switchTheme("");
  page.switchTheme("auto");
});

// Keep the numbers on the bell and in the menu current. Pages in hidden tabs send no requests. A visible page sends 4 of
// the 1,200 requests that the rate limit permits per minute.
const COUNTS_INTERVAL = 15000; // ms between requests
const MAX_COUNTS_INTERVAL = 120000; // the most ms between requests while the server does not respond
const MAX_COUNT = 99;

function showCounts(counts) {
  for (const [name, count] of Object.entries(counts)) {
    for (const element of document.querySelectorAll(`[data-count=${name}]`)) {
      element.hidden = !count;
      element.firstElementChild.textContent = count > MAX_COUNT ? `${MAX_COUNT}+` : count;
    }
  }
}

function keepCounts(url) {
  let interval = COUNTS_INTERVAL;
  let timer = setTimeout(refresh, interval);

  async function refresh() {
    clearTimeout(timer);
    if (document.hidden) return;
    interval = Math.min(2 * interval, MAX_COUNTS_INTERVAL); // unless the request succeeds
    try {
      const headers = { Accept: "application/json" };
      const response = await fetch(url, { headers, signal: AbortSignal.timeout(COUNTS_INTERVAL) });
      if (response.redirected) return; // signed out
      if (response.status === 429) interval = 1000 * response.headers.get("Retry-After");
      if (response.ok) {
        showCounts(await response.json());
        interval = COUNTS_INTERVAL;
      }
    } catch {
      // Keep the last numbers.
    }
    clearTimeout(timer); // of a refresh that started in the meantime
    timer = setTimeout(refresh, interval);
  }

  document.addEventListener("visibilitychange", refresh);
  addEventListener("pageshow", (event) => event.persisted && refresh()); // after the Back button
}

addEventListener("DOMContentLoaded", () => {
  // On a phone, the tabs scroll. Show the tab of the page.
  document.querySelector(".frame-tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  const bell = document.querySelector("[data-counts]");
  if (bell) keepCounts(bell.dataset.counts);
});

// Send each form only once. The server also ignores a second submission, but the browser would show its response.
const RELEASE_AFTER = 10000; // ms, in case the person stopped the request
const disabledButtons = new Map(); // the buttons of each form that is being sent

function release(form) {
  for (const button of disabledButtons.get(form) ?? []) button.disabled = false;
  disabledButtons.delete(form);
}

addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.getAttribute("method") !== "post" || form.target) return;
  if (disabledButtons.has(form)) {
    event.preventDefault();
    return;
  }
  const buttons = [...form.elements].filter((each) => each.type === "submit" && !each.disabled);
  disabledButtons.set(form, buttons);
  // Disable the buttons later, because the browser has not yet read the value of the pressed button.
  setTimeout(() => { for (const button of disabledButtons.get(form) ?? []) button.disabled = true; });
  setTimeout(() => release(form), RELEASE_AFTER);
});
addEventListener("pageshow", () => { for (const form of [...disabledButtons.keys()]) release(form); });

// If the next page appears between the two clicks of a double click, the second click must not press its button.
addEventListener("click", (event) => {
  if (event.detail > 1 && event.target.closest("form[method=post] [type=submit], [data-leaves-secret]")) event.preventDefault();
}, { capture: true });
