// The last events, live. The list is bounded, and in a storm it is drawn a few times a second, however
// much happens between.

import { button, byId, el, keepInStep, setHidden, setText, setTone } from "./dom.js";
import { askSoon, onContact } from "./poll.js";
import { EventReader } from "./stream.js";
import { clock, count, duration, moment, shortDigest } from "./words.js";

const MAX_KEPT = 200;
const MIN_DRAW_MS = 250;
const MAX_TEXT = 600;
/** Facts of single messages. */
const FREQUENT = "messages_accepted,message_delivered,message_waits,message_working,attempt_missed,reply_received,message_dropped";
const PAST = 100;

const TONES = {
  daemon_ready: "good",
  worker_recovered: "good",
  broker_connected: "good",
  config_applied: "good",
  trial_passed: "good",
  daemon_stopping: "warn",
  worker_troubled: "warn",
  broker_disconnected: "bad",
  broker_error: "warn",
  input_troubled: "warn",
  attempt_missed: "warn",
  message_waits: "warn",
  message_refused: "warn",
  message_dropped: "warn",
  handler_failed: "warn",
  error_reports_suppressed: "warn",
  events_lost: "warn",
  worker_failed: "bad",
  config_refused: "bad",
  config_reverted: "bad",
  message_dead: "bad",
  message_interrupted: "bad",
  error_report_lost: "bad",
  history_not_written: "bad",
  orphans_given_up: "bad",
  answers_denied: "bad",
  foreign_answer: "warn",
  store_troubled: "bad",
  store_recovered: "good",
};
/** What changes the state that is shown above. */
const TELLING = /^(daemon|worker|broker|config|trial|input|store)_|^message_(dead|interrupted)$/;
const NOT_SHOWN = new Set(["seq", "at", "event", "node", "worker", "id", "id_text", "previous_id", "previous_id_text", "previous_digest"]);

let kept = [];
let reader = null;
let list = null;
let none = null;
let isPaused = false;
let isLive = false;
let why = "";
let missed = 0;
let total = 0;
/** Of the newest event that was cleared away: a new connection would bring it again. */
let clearedAt = "";
let drawTimer = 0;
let drawnMs = 0;

const keyOf = (event) => `${event.seq ?? event.count} ${event.at ?? ""} ${event.event}`;

function cut(text) {
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
}

const SPAN = /_(s|seconds)$/;

function sayValue(name, value) {
  if (SPAN.test(name)) return duration(value);
  if (name === "digest") return shortDigest(value);
  if (name === "revision") return String(value).slice(0, 10);
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value.join(", ");
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return Object.entries(value).map(([key, found]) => `${found} ${key}`).join(", ");
  }
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** All that an event says beside its kind, time and place, as names and values. */
function sayFacts(event) {
  const facts = Object.entries(event).filter(
    ([name, value]) => !NOT_SHOWN.has(name) && value !== null && value !== "" && value !== undefined,
  );
  return cut(facts.map(([name, value]) => `${name.replace(SPAN, "").replaceAll("_", " ")}: ${sayValue(name, value)}`).join(" · "));
}

function makeEvent(event) {
  const at = el("time", { class: "event-at", title: moment(event.at) }, clock(event.at));
  const kind = el("span", { class: "event-kind", "data-tone": TONES[event.event] ?? "quiet" }, String(event.event).replaceAll("_", " "));
  const where = event.worker ?? event.node;
  // a publisher's worker is named by where it sends to
  const isElsewhere = event.worker && event.node && !String(event.worker).startsWith(`${event.node}.`);
  return el(
    "li",
    { class: "event" },
    at,
    el("p", { class: "event-text" }, kind, where ? [" ", el("span", { class: "code" }, where)] : null, isElsewhere ? ` on ${event.node}` : null, " ", el("span", { class: "foreign" }, sayFacts(event))),
  );
}

function draw() {
  drawTimer = 0;
  drawnMs = performance.now();
  keepInStep(list, kept, keyOf, makeEvent);
  setHidden(none, kept.length > 0);
  tellState();
}

function drawSoon() {
  if (drawTimer === 0 && !isPaused) {
    drawTimer = setTimeout(draw, Math.max(0, MIN_DRAW_MS - (performance.now() - drawnMs)));
  }
}

function tellState() {
  const seen = missed > 0 ? `, ${count(total)} so far` : "";
  const words = isPaused ? `paused${seen}` : isLive ? `live${seen}` : `not live${why ? `: ${why}` : ""}`;
  setText(byId("events-sum"), words);
  setTone(byId("events-sum"), isLive || isPaused ? "" : "warn");
}

function take(events, skipped) {
  const known = new Set(kept.map(keyOf));
  const fresh = events.filter((event) => !known.has(keyOf(event)) && !(event.at <= clearedAt));
  total += fresh.length + skipped;
  missed += skipped + Math.max(0, fresh.length + kept.length - MAX_KEPT);
  kept = [...fresh.reverse(), ...kept].slice(0, MAX_KEPT);
  if (fresh.some((event) => TELLING.test(event.event))) askSoon();
  drawSoon();
}

function follow() {
  reader?.stop();
  const without = byId("events-all").checked ? "" : `&without=${FREQUENT}`;
  reader = new EventReader(`api/v1/events?recent=${PAST}${without}`, take, (live, reason) => {
    isLive = live;
    why = reason;
    tellState();
  });
  if (!document.hidden) reader.start();
}

function pause() {
  isPaused = !isPaused;
  clearTimeout(drawTimer);
  drawTimer = 0;
  byId("events-pause").setAttribute("aria-pressed", String(isPaused));
  if (!isPaused) draw();
  else tellState();
}

export function startEvents() {
  list = el("ol", { class: "events" });
  none = el("p", { class: "quiet" }, "Nothing happened yet.");
  const box = el("div", { class: "scroll-box", tabindex: "0", role: "group", "aria-label": "Events, the newest first" }, list, none);
  const clear = button("Clear", { id: "events-clear" });
  clear.addEventListener("click", () => {
    clearedAt = kept.find((event) => event.at)?.at ?? clearedAt;
    kept = [];
    draw();
  });
  byId("events-pause").after(clear);
  byId("events-body").append(box);
  byId("events-all").addEventListener("change", follow);
  byId("events-pause").addEventListener("click", pause);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      reader.stop();
      isLive = false;
      why = "the page was hidden";
    } else reader.start();
  });
  onContact((error) => {
    if (error === null) reader.hurry();
  });
  follow();
}
