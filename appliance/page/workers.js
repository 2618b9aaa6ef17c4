// Nodes and their workers. Large sets are folded: a node whose workers all run is one line there,
// until it is opened.

import { byId, cell, el, keepInStep, makeTable, pill, setHidden, setText, setTone } from "./dom.js";
import { Rates } from "./series.js";
import { age, ago, count, moment, phaseTone, phaseWords, plural, rate } from "./words.js";

const MAX_OPEN_ROWS = 150;
const MAX_OPEN_ROWS_NARROW = 12;
const TROUBLED = new Set(["backing_off", "failed", "stopped"]);
/** Of all nodes together: what a browser draws without a pause, and more than anybody reads. */
const MAX_ROWS = 600;
const MAX_NODES = 400;
/** More than these stand in a box of their own that scrolls. */
const MAX_FREE_ROWS = 60;

const COLUMNS = {
  subject: { name: "Subject", class: "wide" },
  phase: { name: "Phase", class: "phase" },
  rate: { name: "Per second", class: "number rate" },
  flight: { name: "In flight", class: "number flight" },
  done: { name: "Done", class: "number done" },
  failed: { name: "Failed", class: "number failed" },
  since: { name: "Since", class: "number since" },
};

const narrow = matchMedia("(max-width: 700px)");
const rates = new Rates();
/** What the user opened or closed, against the default. */
const chosen = new Map();
let table = null;
let head = null;
let box = null;
let latest = null;

function makeWorkerRow() {
  const subject = el("span", { class: "code subject" });
  const kind = el("span", { class: "tag" });
  const override = el("span", { class: "tag", "data-tone": "info" });
  const phase = pill("", "quiet");
  const fields = Object.fromEntries(
    ["rate", "flight", "done", "failed", "since"].map((name) => [name, el("span")]),
  );
  const cells = Object.fromEntries(Object.entries(fields).map(([name, node]) => [name, cell(COLUMNS[name], node)]));
  const error = el("span", { class: "foreign last-error", hidden: true });
  const row = el(
    "tr",
    { role: "row", class: "worker" },
    cell(COLUMNS.subject, subject, " ", kind, " ", override, error),
    cell(COLUMNS.phase, phase),
    Object.values(cells),
  );
  row.update = ({ worker, perSecond }) => {
    setText(subject, worker.subject ?? worker.name);
    setText(kind, worker.kind ?? "");
    setHidden(override, !worker.override);
    setText(override, worker.override ? `${worker.override} by hand` : "");
    setText(phase, phaseWords(worker.phase));
    setTone(phase, phaseTone(worker.phase));
    setText(fields.rate, rate(perSecond));
    setText(fields.flight, count(worker.in_flight));
    setText(fields.done, count(worker.handled));
    setText(fields.failed, count(worker.failed));
    for (const name of ["rate", "flight", "done", "failed"]) {
      cells[name].classList.toggle("zero", fields[name].textContent === "0" || fields[name].textContent === "–");
    }
    fields.failed.dataset.tone = worker.failed ? "bad" : "";
    setText(fields.since, age(worker.since));
    fields.since.title = moment(worker.since);
    const trouble = [worker.last_error, worker.restarts ? plural(worker.restarts, "restart") : null].filter(Boolean).join(" · ");
    setText(error, trouble);
    setHidden(error, trouble === "");
    error.title = worker.last_error ?? "";
    setTone(error, worker.phase === "running" ? "quiet" : "bad");
    row.classList.toggle("idle", perSecond === 0 || perSecond === undefined);
  };
  return row;
}

function makeNodeBody(item) {
  const toggle = el("button", { type: "button", class: "fold", "aria-expanded": "true" });
  const name = el("span", { class: "node-name" }, item.node);
  toggle.append(name);
  const sum = el("span", { class: "node-sum" });
  const head = el(
    "tr",
    { role: "row", class: "node-row" },
    el("th", { role: "rowheader", scope: "rowgroup", colspan: Object.keys(COLUMNS).length }, toggle, sum),
  );
  const body = el("tbody", { role: "rowgroup" }, head);
  const more = el("tr", { role: "row" }, el("td", { role: "cell", colspan: Object.keys(COLUMNS).length, class: "quiet" }));
  toggle.addEventListener("click", () => {
    chosen.set(item.node, toggle.getAttribute("aria-expanded") !== "true");
    draw();
  });
  body.update = ({ node, workers, isOpen, mostRows, sumText, tone }) => {
    setText(name, node);
    setText(sum, sumText);
    sum.dataset.tone = tone;
    toggle.setAttribute("aria-expanded", String(isOpen));
    const rows = isOpen ? workers.slice(0, mostRows) : [];
    const hidden = isOpen ? workers.length - rows.length : 0;
    setText(more.firstElementChild, `and ${plural(hidden, "worker")} more: use the filter`);
    keepInStep(
      body,
      [...rows.map((row) => ({ key: row.worker.name, ...row })), ...(hidden ? [{ key: "more" }] : [])],
      (row) => row.key,
      (row) => (row.key === "more" ? more : makeWorkerRow(row)),
      head,
    );
  };
  return body;
}

function matches(node, worker, words) {
  if (byId("worker-troubled").checked && worker.phase === "running") return false;
  const text = `${node} ${worker.subject} ${worker.kind} ${worker.phase} ${worker.last_error ?? ""}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

function describeNode(node, found, perSecond) {
  const workers = found.workers ?? [];
  const running = workers.filter((worker) => worker.phase === "running").length;
  const parts = [`${running} of ${workers.length} running`];
  const busy = workers.reduce((sum, worker) => sum + (perSecond.get(`${node} ${worker.name}`) ?? 0), 0);
  if (busy > 0) parts.push(`${rate(busy)} a second`);
  if (found.last_hello_at) parts.push(`hello ${ago(found.last_hello_at)}`);
  const isTroubled = workers.some((worker) => TROUBLED.has(worker.phase) && worker.override !== "stopped");
  return { sumText: parts.join(" · "), tone: isTroubled ? "bad" : running === workers.length ? "quiet" : "info" };
}

/** As many rows as can be drawn, to the nodes in order; a node that is folded needs none. */
function shareRows(items) {
  let left = MAX_ROWS;
  for (const item of items) {
    item.mostRows = item.isOpen ? left : 0;
    left -= item.isOpen ? Math.min(left, item.workers.length) : 0;
  }
  return items;
}

/** Nodes in the order of their names; where there are too many, those with trouble first. */
function chooseNodes(items) {
  if (items.length <= MAX_NODES) return items;
  const troubled = items.filter((item) => item.tone === "bad");
  return [...troubled, ...items.filter((item) => item.tone !== "bad")].slice(0, MAX_NODES);
}

function draw() {
  if (latest === null) return;
  const { nodes, perSecond } = latest;
  const words = byId("worker-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const isFiltered = words.length > 0 || byId("worker-troubled").checked;
  const all = Object.values(nodes).flatMap((found) => found.workers ?? []);
  const mostOpen = narrow.matches ? MAX_OPEN_ROWS_NARROW : MAX_OPEN_ROWS;
  const items = Object.entries(nodes).map(([node, found]) => {
    const workers = (found.workers ?? [])
      .filter((worker) => matches(node, worker, words))
      .map((worker) => ({ worker, perSecond: perSecond.get(`${node} ${worker.name}`) }));
    const described = describeNode(node, found, perSecond);
    const isOpenByItself = all.length <= mostOpen || described.tone === "bad" || isFiltered;
    return { node, workers, isOpen: chosen.get(node) ?? isOpenByItself, ...described };
  });
  const matching = isFiltered ? items.filter((item) => item.workers.length > 0) : items;
  const shown = shareRows(chooseNodes(matching));
  keepInStep(table, shown, (item) => item.node, makeNodeBody, head);
  const rows = shown.reduce((sum, item) => sum + 1 + Math.min(item.mostRows, item.workers.length), 0);
  box.className = rows > MAX_FREE_ROWS ? "scroll-box tall" : "";
  const hidden = matching.length - shown.length;
  setHidden(byId("workers-rest"), shown.length > 0 && hidden === 0);
  setText(byId("workers-rest"), hidden > 0 ? `and ${plural(hidden, "node")} more: use the filter` : noneWords(all, isFiltered));
  const running = all.filter((worker) => worker.phase === "running").length;
  setText(byId("workers-sum"), `${count(running)} of ${count(all.length)} running, ${plural(items.length, "node")}`);
}

function noneWords(all, isFiltered) {
  return isFiltered && all.length > 0 ? "No worker matches." : "No node runs here.";
}

export function startWorkers() {
  const made = makeTable("Workers by node", Object.values(COLUMNS));
  table = made.table;
  head = made.thead;
  table.classList.add("workers-table");
  box = el("div", {}, table);
  byId("workers-body").append(box, el("p", { id: "workers-rest", class: "quiet", hidden: true }));
  byId("worker-filter").addEventListener("input", draw);
  byId("worker-troubled").addEventListener("change", draw);
}

export function showWorkers(status, atMs) {
  const nodes = status.nodes ?? {};
  const counters = Object.entries(nodes).flatMap(([node, found]) =>
    (found.workers ?? []).map((worker) => [`${node} ${worker.name}`, worker.handled ?? 0]),
  );
  latest = { nodes, perSecond: rates.take(counters, atMs) };
  draw();
}
