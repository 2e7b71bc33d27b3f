// Updates the changing parts of a page, such as the page of a deployment. It fetches them again and changes only the
// nodes that differ, so that scroll position, focus, open sections and typed text stay. No library, no build.
const MAX_WAIT = 30000; // ms between requests, for a hidden tab and a server that does not respond
const TIMEOUT = 15000; // ms for one response
const PARTS = [".live", ".still", ".rest", "fieldset.module", ".related-rows"]; // the elements of live_parts.html
// Attributes that only the browser sets: the reader chooses which sections are open, and console.js makes boxes focusable.
const OPEN = ["open"];
const FOCUSABLE = ["open", "tabindex", "role", "aria-label", "data-scrolls"];
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

const root = document.querySelector("[data-live]");
const notice = document.querySelector("[data-trouble]");
const interval = 1000 * root.dataset.every;
let wait = interval;
let version = root.querySelector(".live").dataset.still; // the state of the part that is reloaded when it changes
let timer;

// -- changing the page ----------------------------------------------------------------------------------------

function areAlike(one, other) {
  return one.nodeName === other.nodeName && (one.id ?? "") === (other.id ?? "");
}

function copyAttributes(old, made) {
  for (const { name, value } of made.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const kept = old.dataset?.scrolls ? FOCUSABLE : OPEN;
  for (const { name } of [...old.attributes]) if (!kept.includes(name) && !made.hasAttribute(name)) old.removeAttribute(name);
}

function morph(old, made) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== made.data) old.data = made.data;
    return;
  }
  copyAttributes(old, made);
  let at = old.firstChild;
  for (const next of [...made.childNodes]) {
    // Find an element with an id wherever it was, and other nodes by their position.
    let same = at;
    if (next.id) same = [...old.children].find((each) => each.id === next.id);
    if (!same || !areAlike(same, next)) old.insertBefore(next, at);
    else {
      if (same === at) at = at.nextSibling;
      else old.insertBefore(same, at);
      morph(same, next);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function show(text) {
  const made = new DOMParser().parseFromString(text, "text/html");
  const focused = document.activeElement;
  for (const part of PARTS) {
    const [old, next] = [document.querySelector(part), made.querySelector(part)];
    if (old && next) morph(old, next);
  }
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  countDown();
}

// -- requests -------------------------------------------------------------------------------------------------

function showNotice(text) {
  if (notice.textContent !== text) notice.textContent = text;
  notice.hidden = !text;
}

function isChanging() {
  return root.querySelector(".live").dataset.moving === "yes";
}

function scheduleRefresh() {
  clearTimeout(timer);
  timer = setTimeout(refresh, document.hidden ? Math.max(wait, MAX_WAIT) : wait);
}

function pause(seconds) {
  showNotice(`You have sent too many requests to the console. Updates continue in ${seconds} ${seconds === 1 ? "second" : "seconds"}.`);
  clearTimeout(timer);
  timer = setTimeout(refresh, 1000 * seconds);
}

async function refresh() {
  clearTimeout(timer);
  try {
    const url = new URL(root.dataset.live + location.search, location);
    const isOutdated = root.querySelector(".live").dataset.still !== version;
    if (isOutdated) url.searchParams.set("still", "yes");
    const response = await fetch(url, {
      signal: AbortSignal.timeout(TIMEOUT), // also limits reading the body
    });
    if (response.redirected) return showNotice("You are signed out. Sign in again to see current data.");
    if (response.status === 404 || response.status === 403) return showNotice("This page no longer exists, or you have no access to it.");
    if (response.status === 429) {
      pause(Number(response.headers.get("Retry-After")));
      return undefined;
    }
    if (!response.ok) throw new Error(response.status);
    show(await response.text());
    const { still, moving } = root.querySelector(".live").dataset;
    if (isOutdated || moving === "no") version = still;
    wait = version === still ? interval : 0;
    showNotice("");
  } catch {
    wait = Math.min(2 * Math.max(wait, interval), MAX_WAIT);
    showNotice("The update failed. The data shown may be outdated. Trying again.");
  }
  if (isChanging()) scheduleRefresh();
  return undefined;
}

// -- countdowns -----------------------------------------------------------------------------------------------

function formatDuration(seconds) {
  const first = Math.max(0, UNITS.findIndex(([size]) => seconds >= size));
  let rest = seconds;
  const parts = UNITS.map(([size, unit]) => {
    const count = Math.floor(rest / size);
    rest %= size;
    return `${count} ${unit}`;
  });
  return parts.slice(seconds < 1 ? 3 : first, (seconds < 1 ? 3 : first) + 2).join(" ");
}

function countDown() {
  for (const each of document.querySelectorAll("time[data-until]")) {
    const seconds = Math.floor((new Date(each.dateTime) - Date.now()) / 1000);
    const text = seconds > 0 ? `${formatDuration(seconds)} left` : "over";
    if (each.textContent !== text) each.textContent = text;
  }
}

document.addEventListener("visibilitychange", () => !document.hidden && isChanging() && refresh());
countDown();
setInterval(countDown, 1000);
if (isChanging()) scheduleRefresh();
