// The outbox: what waits, and the dead letters with the way to try them again or forget them.

import { get, post } from "./api.js";
import { confirmed, errorWords, whileBusy, writeButton } from "./dialogs.js";
import { byId, cell, el, keepInStep, makeTable, pill, setHidden, setText, setTone, toast } from "./dom.js";
import { showInbox, startInbox } from "./inbox.js";
import { askSoon, oneAtATime } from "./poll.js";
import { ago, count, moment, nowMs, plural, readTime, span, stateTone } from "./words.js";

const MAX_DEAD = 100;
const MAX_WAITING = 50;

const DEAD_COLUMNS = {
  what: { name: "Message", class: "wide" },
  reason: { name: "State", class: "wide" },
  died: { name: "Died", class: "number since" },
  tools: { name: "What to do", class: "row-tools", readers: true },
};
const WAITING_COLUMNS = {
  what: { name: "Message", class: "wide" },
  standing: { name: "State", class: "wide" },
  age: { name: "Waits", class: "number since" },
  next: { name: "Next", class: "number since" },
};

const parts = {};
let shownCounts = "";

const idOf = (record) => record.id_text ?? String(record.id);

async function retry(ids, words) {
  const { count: done } = await post("api/v1/outbox/retry", ids === null ? {} : { ids });
  if (done === 0) toast(`${words}: nothing to retry; damaged letters stay`, "bad");
  else toast(`${plural(done, "dead letter")} put back into the outbox: what had failed runs again, what was done is not done twice`);
  await refresh();
  askSoon();
}

async function drop(ids, title, text) {
  const answer = await confirmed({ title, text, yes: "Drop", destroys: true });
  if (answer === null) return;
  const { count: done } = await post("api/v1/outbox/drop", ids === null ? {} : { ids });
  toast(`${plural(done, "dead letter")} dropped`);
  await refresh();
  askSoon();
}

function makeDead(record) {
  const id = idOf(record);
  const about = `${record.method} to ${record.to}`;
  const died = el("span", { title: moment(record.died_at) });
  const again = writeButton("Retry", { class: "small", "aria-label": `Retry ${about}` });
  const forget = writeButton("Drop", { class: "small", "aria-label": `Drop ${about}` });
  again.addEventListener("click", () => whileBusy(again, () => retry([id], about)));
  forget.addEventListener("click", () =>
    whileBusy(forget, () => drop([id], "Drop this dead letter?", `${about}, from ${record.from}, is deleted for good.`)),
  );
  const state = record.state ?? "failed";
  const why = record.state === undefined ? record.reason : record.why;
  const details = [plural(record.attempts ?? 0, "attempt"), record.last_error];
  const row = el(
    "tr",
    { role: "row" },
    cell(DEAD_COLUMNS.what, el("span", { class: "code" }, record.method), " to ", el("span", { class: "code" }, record.to), el("span", { class: "quiet below" }, `from ${record.from}`)),
    cell(DEAD_COLUMNS.reason, pill(state, stateTone(state)), " ", el("span", { class: "foreign" }, why), el("span", { class: "quiet below" }, details.filter(Boolean).join(" · "))),
    cell(DEAD_COLUMNS.died, died),
    cell(DEAD_COLUMNS.tools, again, " ", forget),
  );
  row.update = () => setText(died, ago(record.died_at));
  return row;
}

function makeWaiting(record) {
  const state = pill("", "quiet");
  const why = el("span", { class: "foreign" });
  const tries = el("span", { class: "quiet below" });
  const age = el("span", { title: moment(record.accepted_at) });
  const next = el("span");
  const row = el(
    "tr",
    { role: "row" },
    cell(WAITING_COLUMNS.what, el("span", { class: "code" }, record.method), " to ", el("span", { class: "code" }, record.to), el("span", { class: "quiet below" }, `from ${record.from}`)),
    cell(WAITING_COLUMNS.standing, state, " ", why, tries),
    cell(WAITING_COLUMNS.age, age),
    cell(WAITING_COLUMNS.next, next),
  );
  row.update = (found) => {
    const word = found.state ?? "waiting";
    setText(state, word);
    setTone(state, stateTone(word));
    setText(why, (found.state === undefined ? found.last_error : found.why) ?? "");
    setText(tries, found.attempts ? `${plural(found.attempts, "attempt")} without an acknowledgement` : "");
    setHidden(tries, !found.attempts);
    setText(age, found.age_seconds === undefined ? ago(found.accepted_at) : span(found.age_seconds));
    const at = readTime(found.next_at);
    setText(next, at === null || at <= nowMs() ? "now" : `in ${span((at - nowMs()) / 1000)}`);
  };
  return row;
}

const refresh = oneAtATime(async () => {
  try {
    const [dead, waiting] = await Promise.all([
      get(`api/v1/outbox?state=dead&limit=${MAX_DEAD}`),
      parts.waitingBox.open ? get(`api/v1/outbox?limit=${MAX_WAITING}`) : null,
    ]);
    // one that was retried and died again is another row
    keepInStep(parts.dead, dead.records, (record) => `${idOf(record)} ${record.died_at}`, makeDead);
    const isEmpty = dead.records.length === 0;
    setHidden(parts.none, !isEmpty);
    setHidden(parts.deadTools, isEmpty);
    setHidden(parts.deadTable, isEmpty);
    if (waiting !== null) {
      keepInStep(parts.waiting, waiting.records, idOf, makeWaiting);
      setHidden(parts.waitingTable, waiting.records.length === 0);
      setHidden(parts.waitingNone, waiting.records.length > 0);
    }
    setText(parts.trouble, "");
  } catch (error) {
    setText(parts.trouble, errorWords(error));
    shownCounts = ""; // asked for again with the next look
  }
});

export function showOutbox(status) {
  const { pending = 0, in_flight: inFlight = 0, dead = 0 } = status.outbox ?? {};
  setText(byId("outbox-sum"), `${count(pending)} pending, ${count(inFlight)} in flight, ${count(dead)} dead`);
  setText(parts.rest, dead > MAX_DEAD ? `The oldest ${MAX_DEAD} of ${count(dead)} are shown.` : "");
  setHidden(parts.rest, dead <= MAX_DEAD);
  setText(parts.waitingTitle, `Waiting (${count(pending)})`);
  const why = Object.entries(status.waiting ?? {}).filter(([, number]) => number > 0);
  setText(parts.why, why.map(([reason, number]) => `${count(number)} ${reason}`).join(" · "));
  setHidden(parts.why, why.length === 0);
  showInbox(status);
  const isOpen = parts.waitingBox.open;
  const counts = `${status.started_at} ${dead} ${isOpen ? pending : ""}`;
  // as many as before may be others: one that was retried dies again within a moment
  if (counts !== shownCounts || dead > 0 || (isOpen && pending > 0)) {
    shownCounts = counts;
    refresh();
  }
}

export function startOutbox() {
  const dead = makeTable("Dead letters", Object.values(DEAD_COLUMNS));
  const waiting = makeTable("Waiting messages", Object.values(WAITING_COLUMNS));
  const retryAll = writeButton("Retry all", { class: "small" });
  const dropAll = writeButton("Drop all", { class: "small" });
  retryAll.addEventListener("click", () => whileBusy(retryAll, () => retry(null, "Retry all")));
  dropAll.addEventListener("click", () =>
    whileBusy(dropAll, () => drop(null, "Drop all dead letters?", "Every dead letter is deleted for good, also those that are not shown.")),
  );
  parts.dead = dead.addBody();
  parts.deadTable = dead.table;
  parts.deadTable.hidden = true;
  parts.waiting = waiting.addBody();
  parts.waitingTable = waiting.table;
  parts.none = el("p", { class: "quiet" }, "No dead letters.");
  parts.rest = el("p", { class: "quiet", hidden: true });
  parts.trouble = el("p", { class: "error" });
  parts.deadTools = el("p", { class: "list-tools", hidden: true }, retryAll, " ", dropAll);
  parts.waitingNone = el("p", { class: "quiet", hidden: true }, "Nothing waits.");
  parts.waitingTitle = el("summary", {}, "Waiting");
  parts.why = el("p", { class: "quiet", hidden: true });
  parts.waitingBox = el("details", { class: "fold-box" }, parts.waitingTitle, parts.why, parts.waitingTable, parts.waitingNone);
  parts.waitingBox.addEventListener("toggle", () => {
    if (parts.waitingBox.open) refresh();
  });
  byId("outbox-body").append(parts.trouble, parts.none, parts.deadTools, parts.deadTable, parts.rest, parts.waitingBox, startInbox());
}
