// What can be sent here, those of the config first.

import { byId, cell, el, keepInStep, makeTable, setText } from "./dom.js";
import { count } from "./words.js";

const MAX_ROWS = 200;

const COLUMNS = {
  name: { name: "Method", class: "wide" },
  summary: { name: "What it does", class: "wide" },
};

let body = null;
let title = null;

function makeRow(item) {
  const facts = [item.kind, item.replies ? "answers" : null, item.does ?? null, item.timeout_seconds ? `within ${item.timeout_seconds} s` : null];
  return el(
    "tr",
    { role: "row" },
    cell(
      COLUMNS.name,
      el("span", { class: "code" }, item.name),
      item.usage ? el("span", { class: "code quiet usage" }, ` ${item.usage}`) : null,
      item.source === "config" ? [" ", el("span", { class: "tag", "data-tone": "info" }, "config")] : null,
    ),
    cell(COLUMNS.summary, el("span", {}, item.summary), el("span", { class: "quiet below" }, facts.filter(Boolean).join(" · "))),
  );
}

export function showMethods(status) {
  const methods = status.methods ?? [];
  const own = methods.filter(({ source }) => source === "config").length;
  setText(byId("methods-sum"), own > 0 ? `${count(own)} of this config, ${count(methods.length - own)} built in` : `${count(methods.length)} built in`);
  setText(title, `Show the ${count(methods.length)}`);
  keepInStep(body, methods.slice(0, MAX_ROWS), (item) => JSON.stringify(item), makeRow);
}

export function startMethods() {
  const { table, addBody } = makeTable("Methods", Object.values(COLUMNS));
  body = addBody();
  title = el("summary", {}, "Show");
  byId("methods-body").append(el("details", { class: "fold-box" }, title, table));
}
