// Making and keeping elements. Text only ever becomes text: nothing here, nor anywhere on the page,
// reads markup, and no attribute that loads or runs something is set from what peers say.

const BOOLEANS = new Set(["disabled", "hidden", "checked", "open", "required"]);

/** An element; a string child becomes a text node. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (BOOLEANS.has(name)) node[name] = Boolean(value);
    else node.setAttribute(name, String(value));
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Change a text only where it differs, so that selections and screen readers are left in peace. */
export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
  return node;
}

export function setTone(node, tone) {
  if (node.dataset.tone !== tone) node.dataset.tone = tone;
}

export function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

export function pill(text, tone) {
  return el("span", { class: "pill", "data-tone": tone }, text);
}

/**
 * Keep children in step with items: those of known keys stay the same elements.
 * `make(item)` returns an element with a function `update` of its own, if it has anything to update.
 * What stands before them, up to the element `after`, is left alone.
 */
export function keepInStep(parent, items, keyOf, make, after = null) {
  const known = parent.keptChildren ?? new Map();
  const next = new Map();
  let place = after === null ? parent.firstElementChild : after.nextElementSibling;
  for (const item of items) {
    const key = keyOf(item);
    if (next.has(key)) continue;
    let node = known.get(key);
    if (node === undefined) node = make(item);
    node.update?.(item);
    next.set(key, node);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  for (const [key, node] of known) if (!next.has(key)) node.remove();
  parent.keptChildren = next;
}

/**
 * A table that becomes a list of cards where it is narrow. Roles are written out, because browsers
 * drop a table's own when its display changes.
 */
export function makeTable(label, columns) {
  const head = el(
    "tr",
    { role: "row" },
    columns.map((column) =>
      el("th", { scope: "col", role: "columnheader", class: column.class }, column.readers
        ? el("span", { class: "for-readers" }, column.name)
        : column.name),
    ),
  );
  const thead = el("thead", { role: "rowgroup" }, head);
  const table = el("table", { role: "table", "aria-label": label }, thead);
  return { table, thead, addBody: () => table.appendChild(el("tbody", { role: "rowgroup" })) };
}

/** A cell that knows its column's name, for the cards of a narrow page. */
export function cell(column, ...children) {
  const props = { role: "cell", class: column.class, "data-label": column.readers ? undefined : column.name };
  return el("td", props, ...children);
}

export function button(text, props = {}) {
  return el("button", { type: "button", ...props }, text);
}

let sayTimer = 0;

/** Tell screen readers, politely. */
export function say(text) {
  const region = byId("said");
  region.textContent = "";
  clearTimeout(sayTimer);
  sayTimer = setTimeout(() => setText(region, text), 50);
}

/** A notice that goes by itself, except one that warns, which stays until it is closed. */
export function toast(text, tone = "good") {
  const close = button("Close", { class: "quiet-button" });
  const node = el("div", { class: "toast", "data-tone": tone }, el("p", {}, text), close);
  close.addEventListener("click", () => node.remove());
  byId("toasts").append(node);
  say(text);
  while (byId("toasts").children.length > 4) byId("toasts").firstElementChild.remove();
  if (tone === "good") setTimeout(() => node.remove(), 6000);
}
