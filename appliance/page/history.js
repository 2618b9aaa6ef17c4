// The history: every set that was applied, refused or taken back, what it changed in the files, and
// the way back to it.

import { get, post } from "./api.js";
import { tellVerdict } from "./config.js";
import { confirmed, errorWords, whileBusy, writeButton } from "./dialogs.js";
import { button, byId, el, keepInStep, pill, setHidden, setText } from "./dom.js";
import { ActionTable, ProblemList } from "./problems.js";
import { ago, countChanges, duration, moment, plural, readTime, resultTone, shortDigest, triggerWords } from "./words.js";

const FIRST = 8;
const MOST = 50;

let limit = FIRST;
let list = null;
let more = null;
let state = null;
/** What the shown records are about, and how often they are asked for yet: a record is written
    a moment after its verdict is told. */
let shownKey = null;
let asksLeft = 0;
let isAsking = false;
let records = [];
let currentDigest = null;

const wasInForce = (record) => record.result === "applied" || record.result === "reverted";

const LINE_CLASSES = [
  [/^(---|\+\+\+) /, "diff-file"],
  [/^@@/, "diff-place"],
  [/^\+/, "diff-in"],
  [/^-/, "diff-out"],
];

function showDiff(text) {
  const lines = text.replace(/\n$/, "").split("\n").map((line) => {
    const kind = LINE_CLASSES.find(([pattern]) => pattern.test(line))?.[1] ?? "diff-same";
    return el("span", { class: kind }, `${line}\n`);
  });
  return el("pre", { class: "diff", tabindex: "0", role: "group", "aria-label": "What changed in the files" }, lines);
}

function whyNoDiff(record) {
  if (record.values_hidden) return "What changed in the files is shown with the token.";
  if (record.result === "refused") return "The files of this set were not kept.";
  if (!record.previous_digest) return "The first set of this daemon, or the one before it is not known: there is nothing to compare with.";
  return record.previous_digest === record.digest ? "The files are the same as before." : "The files of the set before were not kept.";
}

async function fillDetails(record, body) {
  let found;
  try {
    found = await get(`api/v1/history/${encodeURIComponent(record.number)}`);
  } catch (error) {
    body.replaceChildren(el("p", { class: "quiet" }, errorWords(error)));
    return;
  }
  const problems = new ProblemList("Problems of this set");
  const actions = new ActionTable("What this set did");
  problems.show(found.problems ?? []);
  actions.show(found.actions ?? []);
  const drain = found.drain ?? {};
  const drained = ["finished", "handed_back", "abandoned"].filter((name) => drain[name] > 0);
  body.replaceChildren(
    el(
      "dl",
      { class: "pairs" },
      el("div", {}, el("dt", {}, "Digest"), el("dd", { class: "code" }, found.digest || "none")),
      found.revision ? el("div", {}, el("dt", {}, "Revision"), el("dd", { class: "code" }, found.revision)) : null,
      el("div", {}, el("dt", {}, "When"), el("dd", {}, `${moment(found.at)}, took ${duration(found.duration_seconds)}`)),
      drained.length > 0
        ? el("div", {}, el("dt", {}, "Drained"), el("dd", {}, drained.map((name) => `${drain[name]} ${name.replace("_", " ")}`).join(", ")))
        : null,
    ),
    problems.node,
    found.diff ? showDiff(found.diff) : el("p", { class: "quiet" }, whyNoDiff(found)),
    actions.node,
  );
}

async function rollBack(record) {
  const answer = await confirmed({
    title: `Roll back to generation ${record.generation}?`,
    text: `The set ${shortDigest(record.digest)} of ${moment(record.at)} comes into force and is pinned until the files change.`,
    yes: "Roll back",
    option: "even if that cancels more workers than reload.max_cancel allows",
  });
  if (answer === null) return;
  const verdict = await post("api/v1/rollback", { to: String(record.number), force: answer.checked });
  tellVerdict(verdict, "Rollback");
}

function describe(record) {
  const by = record.by ? ` by ${record.by}` : "";
  const counted = countChanges(record.actions);
  const errors = (record.problems ?? []).filter((problem) => problem.severity !== "warning");
  const what = record.result === "refused" ? plural(errors.length, "problem") : counted || "no worker changed";
  return `${what} · ${triggerWords(record.trigger)}${by}`;
}

function makeRecord(record) {
  const result = pill(record.result, resultTone(record.result));
  const when = el("span", { class: "record-when", title: moment(record.at) });
  const current = el("span", { class: "tag", "data-tone": "good", hidden: true }, "in force");
  const head = el(
    "button",
    { type: "button", class: "record-head", "aria-expanded": "false" },
    el("span", { class: "record-line" }, result, el("b", {}, record.result === "refused" ? `generation ${record.generation} stayed` : `generation ${record.generation}`), current, when),
    el(
      "span",
      { class: "record-line quiet" },
      el("span", { class: "code" }, shortDigest(record.digest)),
      record.revision ? el("span", { class: "code" }, String(record.revision).slice(0, 10)) : null,
      el("span", { class: "record-what" }, describe(record)),
    ),
  );
  const back = writeButton("Roll back to this", { class: "small", hidden: true });
  back.addEventListener("click", () => whileBusy(back, () => rollBack(record)));
  const details = el("div", { class: "record-details" });
  const body = el("div", { class: "record-body", hidden: true }, details, back);
  head.addEventListener("click", () => {
    const isOpen = head.getAttribute("aria-expanded") !== "true";
    head.setAttribute("aria-expanded", String(isOpen));
    setHidden(body, !isOpen);
    if (isOpen) {
      if (!details.firstChild) details.append(el("p", { class: "quiet" }, "…"));
      fillDetails(record, details);
    }
  });
  const node = el("li", { class: "record" }, head, body);
  node.update = () => {
    setText(when, ago(record.at));
    setHidden(current, record.number !== currentNumber());
    setHidden(back, !wasInForce(record) || record.digest === currentDigest);
  };
  return node;
}

/** The newest record of the set in force. */
const currentNumber = () => records.find((record) => wasInForce(record) && record.digest === currentDigest)?.number;

function draw() {
  const shown = records.slice(0, limit);
  keepInStep(list, shown, (record) => record.number, makeRecord);
  setHidden(more, records.length <= limit);
  setText(state, records.length === 0 ? "Nothing yet." : "");
  setHidden(state, records.length > 0);
}

async function ask(key) {
  if (isAsking) return;
  isAsking = true;
  try {
    const found = await get(`api/v1/history?limit=${limit + 1}`);
    records = (found.records ?? []).filter((record) => readTime(record.at) !== null);
    asksLeft = key === shownKey ? asksLeft - 1 : 1;
    shownKey = key;
    draw();
  } catch (error) {
    setText(state, errorWords(error));
    setHidden(state, false);
  } finally {
    isAsking = false;
  }
}

export function showHistory(status) {
  const config = status.config ?? {};
  currentDigest = config.digest ?? null;
  const attempt = config.last_attempt ?? {};
  const told = attempt.result === "unchanged" ? "" : `${attempt.result} ${attempt.at}`;
  const key = `${status.started_at} ${status.generation} ${config.digest} ${told}`;
  if (key !== shownKey || asksLeft > 0) ask(key);
  else draw();
}

export function startHistory() {
  list = el("ol", { class: "records" });
  state = el("p", { class: "quiet" }, "…");
  more = button("Show older", { class: "small", hidden: true });
  more.addEventListener("click", () => {
    limit = MOST;
    whileBusy(more, () => ask(shownKey));
  });
  byId("history-body").append(list, state, more);
}
