"""Runs axe-core on pages of the console: in light and dark mode, and in a window as narrow as a phone."""

from __future__ import annotations

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

# Defines ``examine``. By default, it runs axe's enabled rules for serious and critical violations, except experimental
# rules, and also runs label-content-name-mismatch. For each element, axe parses its colors and the colors of all
# elements behind it. A page has few colors, so parsed colors are cached.
PREPARE = """;(() => {
  const serious = axe._audit.rules.filter(rule => rule.enabled && !rule.tags.includes("experimental")
    && ["serious", "critical"].includes(rule.impact)).map(rule => rule.id).concat("label-content-name-mismatch");
  const { Color } = axe.commons.color, { parseString } = Color.prototype, parsed = new Map();
  Color.prototype.parseString = function (text) {
    if (!parsed.has(text)) parsed.set(text, parseString.call(new Color(), text));
    const { r, g, b, alpha } = parsed.get(text);
    return Object.assign(this, { r, g, b, alpha });
  };
  window.examine = (leftOut, rules = serious) => axe
    .run({ exclude: [leftOut] }, { resultTypes: ["violations"], runOnly: rules }).then(found => found.violations
    .flatMap(each => each.nodes.map(node => `${each.id}: ${node.target} ${node.html.slice(0, 200)}`)));
})()"""
# Defines ``reds``, which returns the visible elements with a red background, border or text. Red text in a submit
# button does not count. Returns nothing if the only red element is a submit button: a page may have one red button,
# which confirms a destructive act.
REDS = """;window.reds = () => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true }), known = new Map();
  const isRed = color => {
    if (!known.has(color)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, alpha] = canvas.getImageData(0, 0, 1, 1).data;
      // Within 20 degrees of pure red, and neither gray, nearly white nor nearly transparent.
      known.set(color, alpha > 40 && r - Math.max(g, b) > 60 && Math.abs(g - b) < (r - Math.min(g, b)) / 3);
    }
    return known.get(color);
  };
  const found = [...document.querySelectorAll("body *")].filter(each => {
    if (!each.checkVisibility()) return false;
    const style = getComputedStyle(each);
    const edges = ["Top", "Right", "Bottom", "Left"].filter(side => style[`border${side}Width`] !== "0px");
    const text = [...each.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    return isRed(style.backgroundColor) || edges.some(side => isRed(style[`border${side}Color`]))
      || text && isRed(style.color) && !each.closest("button[type=submit]");
  });
  return found.length > 1 || found.some(each => !each.matches("button[type=submit]"))
    ? found.map(each => `red: ${each.outerHTML.slice(0, 200)}`) : [];
}"""
# Runs axe in light mode, and checks h1, main, icons, clickable and red elements, for which axe has no rule or only a
# moderate one. With ``inDark``, then checks in dark mode what depends on colors: contrasts and red elements.
WIDE = """async ([leftOut, inDark]) => {
  const found = [
    ...await examine(leftOut),
    ...reds(),
    ...document.querySelectorAll("h1").length === 1 ? [] : ["not exactly one h1"],
    ...document.querySelectorAll("main").length === 1 ? [] : ["not exactly one main"],
    ...[...document.querySelectorAll(".material-symbols-outlined")].filter(each => !each.closest("[aria-hidden=true]"))
      .map(each => `an icon that is read aloud: ${each.outerHTML}`),
    ...[...document.querySelectorAll("[x-on\\\\:click]")]
      .filter(each => !each.matches("button, a[href], #changelist-filter-close"))
      .map(each => `a clickable element that is no button or link: ${each.outerHTML.slice(0, 200)}`),
  ];
  if (!inDark) return found;
  document.documentElement.classList.add("dark");
  return [...found, ...[...await examine(leftOut, ["color-contrast"]), ...reds()].map(each => `in dark, ${each}`)];
}"""
# Runs the rules that depend on the window's width, and checks that no list or page is too wide. A page's scripts are
# notified of a new width while the browser draws the next frame, so wait for the frame after that.
NARROW = """async leftOut => {
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  return [
    ...await examine(leftOut, ["scrollable-region-focusable", "target-size", "button-name", "link-name"]),
    ...[...document.querySelectorAll("style + #result_list")].map(each => each.parentElement)
      .filter(each => each.scrollWidth > each.clientWidth).map(() => "a list that scrolls sideways"),
    ...document.documentElement.scrollWidth <= innerWidth ? [] : [
      `wider than the window: ${[...document.querySelectorAll("main *")]
        .filter(each => each.getBoundingClientRect().right > innerWidth).map(each => each.className).slice(0, 3)}`],
  ].map(each => `narrow, ${each}`);
}"""
MENU = "#nav-sidebar"  # nearly the same on every page, so most examinations leave it out


def prepare(page: Page) -> Page:
    """Load axe into each document that the page opens after this call. The browser compiles axe only once."""
    page.add_init_script(AXE_SCRIPT + PREPARE + REDS)
    return page


def examine(page: Page, path: str, *, left_out: str = MENU) -> list[str]:
    """Open a page and return its accessibility problems in light mode, dark mode (except acts) and a narrow window."""
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(path)
    return examine_open(page, path, left_out=left_out)


def examine_open(page: Page, path: str, *, left_out: str = MENU) -> list[str]:
    """Return the accessibility problems of the page that is already open, like ``examine``.

    Leaves the window narrow, and the page in dark mode unless it is the page of an act.
    """
    # Skip dark mode on the pages of acts, because other pages have the same colors.
    wrong = page.evaluate(WIDE, [left_out, "/act/" not in path])
    page.set_viewport_size({"width": 390, "height": 844})
    wrong += page.evaluate(NARROW, left_out)
    return [f"{path} {each}" for each in wrong]
