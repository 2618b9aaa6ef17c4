// Problems of a config, with their place, the line and a mark below it; and what a plan would do.

import { cell, el, keepInStep, makeTable, setHidden, setText } from "./dom.js";
import { plural, shown, sign } from "./words.js";

const MAX_PROBLEMS = 100;
const MAX_ACTIONS = 200;
const MAX_FIELDS = 20;
const EXCERPT_COLUMNS = 96;
const BEFORE = 48;

const isWarning = (problem) => problem.severity === "warning";

export function place(problem) {
  if (!problem.file) return "";
  return problem.line ? `${problem.file}:${problem.line}:${problem.column || 1}` : problem.file;
}

/** The line that is meant, cropped to what can be read, with what is marked in it. */
function excerpt(problem) {
  const line = problem.excerpt;
  const index = Math.min(Math.max(problem.column - 1, 0), line.length);
  const start = line.length > EXCERPT_COLUMNS && index > BEFORE ? Math.min(index - BEFORE, line.length - EXCERPT_COLUMNS) : 0;
  const end = Math.min(line.length, start + EXCERPT_COLUMNS);
  const markEnd = Math.min(end, index + Math.max(1, problem.length || 1));
  return el(
    "pre",
    { class: "excerpt", tabindex: "0", role: "group", "aria-label": `Line ${problem.line}` },
    el("span", { class: "line-number" }, `${problem.line}  `),
    (start ? "…" : "") + line.slice(start, index),
    el("mark", {}, line.slice(index, markEnd) || " "),
    line.slice(markEnd, end) + (end < line.length ? "…" : ""),
  );
}

function makeProblem(problem) {
  const where = place(problem);
  return el(
    "li",
    { class: "problem", "data-tone": isWarning(problem) ? "warn" : "bad" },
    el(
      "p",
      { class: "problem-head" },
      el("span", { class: "tag", "data-tone": isWarning(problem) ? "warn" : "bad" }, isWarning(problem) ? "warning" : "error"),
      " ",
      el("span", { class: "code" }, problem.code),
      where ? [" ", el("span", { class: "code place" }, where)] : null,
    ),
    el("p", { class: "problem-text" }, problem.path ? [el("span", { class: "code" }, problem.path), ": "] : null, problem.message),
    problem.line > 0 && problem.excerpt ? excerpt(problem) : null,
    problem.hint ? el("p", { class: "hint" }, el("b", {}, "hint: "), problem.hint) : null,
  );
}

/** A list of problems that is kept in step. */
export class ProblemList {
  constructor(label) {
    this.list = el("ul", { class: "problems", "aria-label": label });
    this.rest = el("p", { class: "quiet", hidden: true });
    this.node = el("div", { hidden: true }, this.list, this.rest);
  }

  show(problems) {
    const some = problems.slice(0, MAX_PROBLEMS);
    const hidden = problems.length - some.length;
    setHidden(this.node, problems.length === 0);
    keepInStep(this.list, some, (problem) => JSON.stringify(problem), makeProblem);
    setHidden(this.rest, hidden === 0);
    setText(this.rest, `and ${plural(hidden, "problem")} more`);
  }
}

const ACTION_COLUMNS = [
  { name: "Action", class: "action" },
  { name: "Worker", class: "wide" },
];

/** A field and its values as the config writes them: `every: 30 s → 5 s`. */
const isTime = (name) => name.endsWith("_s");
const fieldName = (name) => name.replace(/^schedule\./, "").replace(/_s$/, "");
const fieldValue = (name, value) => (isTime(name) && typeof value === "number" ? `${value} s` : shown(value));

function changeLines(fields) {
  const all = Object.entries(fields ?? {});
  const lines = all.slice(0, MAX_FIELDS).map(([name, [before, after]]) =>
    el(
      "li",
      {},
      el("span", { class: "code" }, fieldName(name)),
      ": ",
      el("del", { class: "code" }, fieldValue(name, before)),
      " → ",
      el("ins", { class: "code" }, fieldValue(name, after)),
    ),
  );
  if (all.length > MAX_FIELDS) lines.push(el("li", { class: "quiet" }, `and ${plural(all.length - MAX_FIELDS, "field")} more`));
  return lines.length > 0 ? el("ul", { class: "changes" }, lines) : null;
}

function makeAction({ action, worker, node, fields }) {
  const what = el("span", { class: "action-word", "data-action": action }, el("span", { "aria-hidden": "true" }, `${sign(action)} `), action);
  const isNamed = String(worker).startsWith(`${node}.`);
  return el(
    "tr",
    { role: "row" },
    cell(ACTION_COLUMNS[0], what),
    cell(ACTION_COLUMNS[1], el("span", { class: "code" }, worker), isNamed ? null : el("span", { class: "quiet" }, ` on ${node}`), changeLines(fields)),
  );
}

/** The actions of a plan and the settings beside the workers, as a table that is kept in step. */
export class ActionTable {
  constructor(label) {
    const { table, addBody } = makeTable(label, ACTION_COLUMNS);
    table.classList.add("actions");
    this.body = addBody();
    this.rest = el("p", { class: "quiet", hidden: true });
    this.node = el("div", { hidden: true }, table, this.rest);
  }

  show(actions, settings = {}) {
    const others = Object.entries(settings).map(([name, values]) => ({
      action: "update",
      worker: "settings",
      node: "settings",
      fields: { [name]: values },
    }));
    const all = [...others, ...actions.filter(({ action }) => action !== "keep")];
    const some = all.slice(0, MAX_ACTIONS);
    setHidden(this.node, all.length === 0);
    keepInStep(this.body, some, (item) => JSON.stringify(item), makeAction);
    setHidden(this.rest, all.length === some.length);
    setText(this.rest, `and ${plural(all.length - some.length, "action")} more`);
  }
}
