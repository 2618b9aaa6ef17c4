// What was taken in and is not finished; what no worker takes is named, with the way to forget it.

import { get, post } from "./api.js";
import { confirmed, errorWords, whileBusy, writeButton } from "./dialogs.js";
import { cell, el, keepInStep, makeTable, pill, setHidden, setText, setTone, toast } from "./dom.js";
import { askSoon, oneAtATime } from "./poll.js";
import { ago, count, moment, plural, span, stateTone } from "./words.js";

const MAX_ROWS = 50;

const COLUMNS = {
  what: { name: "Message", class: "wide" },
  state: { name: "State", class: "wide" },
  age: { name: "Age", class: "number since" },
  tools: { name: "What to do", class: "row-tools", readers: true },
};

const parts = {};
let shownCounts = "";
let wasOrphaned = false;

const idOf = (record) => record.id_text ?? String(record.id);

async function drop(body, title, text) {
  const answer = await confirmed({ title, text, yes: "Drop", destroys: true });
  if (answer === null) return;
  const { count: done, held = 0 } = await post("api/v1/inbox/drop", body);
  toast(`${plural(done, "message")} dropped${held ? `; ${count(held)} in the hands of a worker stay` : ""}`);
  await refresh();
  askSoon();
}

function makeRow(record) {
  const about = `${record.method} from ${record.from}`;
  const state = pill("", "quiet");
  const why = el("span", { class: "foreign" });
  const age = el("span", { title: moment(record.taken_at) });
  const forget = writeButton("Drop", { class: "small", "aria-label": `Drop ${about}` });
  forget.addEventListener("click", () =>
    whileBusy(forget, () => drop({ ids: [idOf(record)] }, "Drop this message?", `${about} was taken in and never runs then.`)),
  );
  const row = el(
    "tr",
    { role: "row" },
    cell(COLUMNS.what, el("span", { class: "code" }, record.method), " from ", el("span", { class: "code" }, record.from), el("span", { class: "quiet below" }, `on ${record.node}`)),
    cell(COLUMNS.state, state, " ", why),
    cell(COLUMNS.age, age),
    cell(COLUMNS.tools, forget),
  );
  row.update = (found) => {
    setText(state, found.state ?? "");
    setTone(state, stateTone(found.state));
    setText(why, found.why ?? "");
    setText(age, found.age_seconds === undefined ? ago(found.taken_at) : span(found.age_seconds));
    setHidden(forget, found.state !== "orphaned");
  };
  return row;
}

const refresh = oneAtATime(async () => {
  if (!parts.box.open) return;
  try {
    const { records } = await get(`api/v1/inbox?limit=${MAX_ROWS}`);
    keepInStep(parts.rows, records, idOf, makeRow);
    setHidden(parts.table, records.length === 0);
    setHidden(parts.none, records.length > 0);
    setText(parts.trouble, "");
  } catch (error) {
    setText(parts.trouble, errorWords(error));
    shownCounts = ""; // asked for again with the next look
  }
});

export function showInbox(status) {
  const { unfinished = 0, orphaned = 0 } = status.inbox ?? {};
  setText(parts.title, `Taken in, not finished (${count(unfinished)}${orphaned ? `, ${count(orphaned)} without a worker` : ""})`);
  setTone(parts.title, orphaned ? "bad" : "");
  setHidden(parts.tools, orphaned === 0);
  // NB: opened once when it becomes news; whoever closes it is left in peace
  if (orphaned > 0 && !wasOrphaned) parts.box.open = true;
  wasOrphaned = orphaned > 0;
  const counts = `${status.started_at} ${unfinished} ${orphaned}`;
  if (counts !== shownCounts || unfinished > 0) {
    shownCounts = counts;
    refresh();
  }
}

/** The box, to be placed by whoever shows it. */
export function startInbox() {
  const made = makeTable("Messages taken in", Object.values(COLUMNS));
  parts.rows = made.addBody();
  parts.table = made.table;
  parts.table.hidden = true;
  parts.none = el("p", { class: "quiet" }, "Nothing is unfinished.");
  parts.trouble = el("p", { class: "error" });
  parts.title = el("summary", {}, "Taken in, not finished");
  const dropAll = writeButton("Drop all without a worker", { class: "small" });
  dropAll.addEventListener("click", () =>
    whileBusy(dropAll, () => drop({ all: true }, "Drop all messages without a worker?", "They were taken in and never run then, also those that are not shown.")),
  );
  parts.tools = el("p", { class: "list-tools", hidden: true }, dropAll);
  parts.box = el("details", { class: "fold-box" }, parts.title, parts.trouble, parts.tools, parts.table, parts.none);
  parts.box.addEventListener("toggle", () => {
    if (parts.box.open) refresh();
  });
  return parts.box;
}
