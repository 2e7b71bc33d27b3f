// Adds and removes rows of a form field that has a list of rows. Without scripts, people fill in the blank row at the end,
// and empty the inputs of a row to remove it.
"use strict";

for (const field of document.querySelectorAll("[data-rows]")) {
  const noun = field.dataset.rows;
  const list = field.querySelector(".rows-list");
  const add = field.querySelector("[data-add]");
  const status = field.querySelector("[role=status]");
  const blank = list.querySelector("[data-blank]");
  blank.remove();
  blank.removeAttribute("data-blank");

  const rows = () => [...list.children];
  const changed = (text) => {
    rows().forEach((row, at) => row.setAttribute("aria-label", `${noun[0].toUpperCase()}${noun.slice(1)} ${at + 1}`));
    for (const button of field.querySelectorAll("button")) button.hidden = false;
    if (!text) return;
    status.textContent = text;
    field.dispatchEvent(new Event("input", { bubbles: true })); // for scripts that watch the form
  };
  changed("");

  add.addEventListener("click", () => {
    const row = blank.cloneNode(true);
    list.append(row);
    changed(`Added ${noun} ${list.children.length}`);
    row.querySelector("input, select").focus();
  });
  list.addEventListener("click", (event) => {
    const button = event.target.closest("[data-remove]");
    if (!button) return;
    const row = button.closest("[role=group]");
    const at = rows().indexOf(row);
    row.remove();
    changed(`Removed ${noun} ${at + 1}`);
    // Keep the focus near the removed row.
    (rows()[at]?.querySelector("[data-remove]") ?? add).focus();
  });
}
