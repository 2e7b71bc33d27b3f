// Updates "What would happen" next to the form of a deployment while a person fills it in. Without scripts, the button
// "Preview" does the same. No library, no build.
const DELAY = 300; // ms without a change before the preview is requested
const TIMEOUT = 15000; // ms for one response

const form = document.getElementById("deploy");
const outlook = document.getElementById("outlook");
const said = document.querySelector("[data-status]");
let lastRequest = 0;
let timer;

function setStale(stale) {
  outlook.classList.toggle("stale", stale);
  // People may request only what the preview shows.
  for (const button of outlook.querySelectorAll("button")) button.disabled = stale;
}

function say(text, everybody) {
  said.textContent = text;
  said.classList.toggle("sr-only", !everybody); // hidden if the preview shows the same text
}

async function preview() {
  lastRequest += 1;
  const request = lastRequest; // an outdated response is ignored
  const body = new FormData(form);
  body.set("_live", "");
  try {
    const response = await fetch(location.href, { method: "POST", body, signal: AbortSignal.timeout(TIMEOUT) });
    if (response.redirected) throw new Error("You are signed out. Sign in again in another tab.");
    if (!response.ok) throw new Error("The preview failed. Press Preview to see why.");
    const text = await response.text();
    if (request !== lastRequest) return;
    outlook.innerHTML = text; // HTML of a server template, which escapes values
    say(outlook.querySelector("[data-said]")?.textContent ?? "", false);
    setStale(false);
  } catch (error) {
    // The errors of fetch itself are not sentences for people.
    const text = error.constructor === Error ? error.message : "The server does not respond. Press Preview to try again.";
    if (request === lastRequest) say(text, true);
  }
}

// Reviewers have something to decide only if the deployment or one of its waves needs approval.
const reviewers = form.querySelector("[name=reviewers]")?.closest("fieldset.group");
function showReviewers() {
  const holds = [...form.querySelectorAll('[name="waves.hold"]')].slice(1).map((each) => each.value);
  const waits = form.elements.strategy.value === "own" && holds.includes("approval");
  if (reviewers) reviewers.hidden = form.dataset.approval !== "yes" && !waits;
}
showReviewers();

function refresh() {
  showReviewers();
  setStale(true);
  clearTimeout(timer);
  timer = setTimeout(preview, DELAY);
}

function isChanged(field) {
  if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
  if (field.tagName !== "SELECT") return field.value !== field.defaultValue;
  const chosen = [...field.options].filter((each) => each.defaultSelected);
  if (!chosen.length && !field.multiple) chosen.push(field.options[0]);
  return [...field.options].some((each) => each.selected !== chosen.includes(each));
}

form.addEventListener("input", refresh);
// A person may have changed fields before this script ran, and browsers restore fields after "Back".
const fields = [...form.querySelectorAll("input:not([type=hidden]), select, textarea")];
if (fields.some(isChanged)) refresh();
