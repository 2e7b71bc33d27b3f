// A row's page that moves by itself: the server renders its live part again, and what differs is changed in place, so
// that scroll position, focus, open parts and what one has typed stay. No library, no build.
const SLOWEST = 30000; // ms, for a tab that nobody looks at and a server that does not answer
const LONGEST = 15000; // ms, for one answer
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

const root = document.querySelector("[data-live]");
const trouble = document.querySelector("[data-trouble]");
const every = 1000 * root.dataset.every;
let wait = every;
let timer;

// -- changing what differs ------------------------------------------------------------------------------------

function alike(one, other) {
  return one.nodeName === other.nodeName && (one.id ?? "") === (other.id ?? "");
}

function attributes(old, made) {
  for (const { name, value } of made.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  // Whether a part is open is the reader's.
  for (const { name } of [...old.attributes]) if (name !== "open" && !made.hasAttribute(name)) old.removeAttribute(name);
}

function morph(old, made) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== made.data) old.data = made.data;
    return;
  }
  attributes(old, made);
  let at = old.firstChild;
  for (const next of [...made.childNodes]) {
    // What has an id is found wherever it was; the rest by its place.
    let same = at;
    if (next.id) same = [...old.children].find((each) => each.id === next.id);
    if (!same || !alike(same, next)) old.insertBefore(next, at);
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
  const made = new DOMParser().parseFromString(text, "text/html").querySelector(".live");
  const focused = document.activeElement;
  morph(root.querySelector(".live"), made);
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  countDown();
}

// -- asking ---------------------------------------------------------------------------------------------------

function say(text) {
  if (trouble.textContent !== text) trouble.textContent = text;
  trouble.hidden = !text;
}

function moving() {
  return root.querySelector(".live").dataset.moving === "yes";
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(refresh, document.hidden ? Math.max(wait, SLOWEST) : wait);
}

async function refresh() {
  clearTimeout(timer);
  try {
    const response = await fetch(root.dataset.live + location.search, {
      headers: { Accept: "text/html" },
      signal: AbortSignal.timeout(LONGEST), // while the answer is read, too
    });
    if (response.redirected) return say("You are signed out: sign in again to see how it goes on.");
    if (response.status === 404 || response.status === 403) return say("It is not there any more, or not for you.");
    if (!response.ok) throw new Error(response.status);
    show(await response.text());
    wait = every;
    say("");
  } catch {
    wait = Math.min(2 * wait, SLOWEST);
    say("The server does not answer; what is shown may be old. Trying again.");
  }
  if (moving()) later();
  return undefined;
}

// -- counting down --------------------------------------------------------------------------------------------

function span(seconds) {
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
    const text = seconds > 0 ? `${span(seconds)} left` : "over";
    if (each.textContent !== text) each.textContent = text;
  }
}

document.addEventListener("visibilitychange", () => !document.hidden && moving() && refresh());
countDown();
setInterval(countDown, 1000);
if (moving()) later();
