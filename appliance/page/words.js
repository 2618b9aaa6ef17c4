// Numbers, times and names as people say them.

let skewMs = 0;

/** What the daemon's clock is ahead of ours, so that ages are right on a laptop whose clock is not. */
export function noteServerTime(dateHeader) {
  const at = Date.parse(dateHeader ?? "");
  // the header has whole seconds only: a difference below two says nothing
  if (!Number.isNaN(at)) skewMs = Math.abs(at - Date.now()) > 2000 ? at - Date.now() : 0;
}

export const nowMs = () => Date.now() + skewMs;

/** Wall-clock milliseconds of an RFC 3339 text or of seconds; null when there is none. */
export function readTime(value) {
  if (typeof value === "number") return value > 0 ? value * 1000 : null;
  const at = Date.parse(value ?? "");
  return Number.isNaN(at) ? null : at;
}

export function span(seconds) {
  const value = Math.max(0, seconds);
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  if (value < 172800) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86400)} d`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(Number(seconds))) return "–";
  const value = Number(seconds);
  if (value < 1) return `${trim(value * 1000)} ms`;
  return value < 100 ? `${trim(value)} s` : span(value);
}

const trim = (value) => String(Number(value.toPrecision(value < 10 ? 2 : 3)));

export function ago(value) {
  const at = readTime(value);
  return at === null ? "never" : `${span((nowMs() - at) / 1000)} ago`;
}

export function age(value) {
  const at = readTime(value);
  return at === null ? "–" : span((nowMs() - at) / 1000);
}

const two = (number) => String(number).padStart(2, "0");

export function clock(value) {
  const at = readTime(value);
  if (at === null) return "–";
  const date = new Date(at);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** A time of this machine's own clock. */
export const wallClock = (atMs) => clock(new Date(atMs).toISOString());

export function moment(value) {
  const at = readTime(value);
  if (at === null) return "–";
  const date = new Date(at);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(value)}`;
}

/** A rate or a count, short. */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  if (value < 0.095) return value.toFixed(2);
  if (value < 9.95) return value.toFixed(1);
  return count(Math.round(value));
}

const counter = new Intl.NumberFormat("en", { useGrouping: true });

export const count = (value) => counter.format(value ?? 0);

export function plural(number, word, words = `${word}s`) {
  return `${count(number)} ${number === 1 ? word : words}`;
}

export function shortDigest(digest) {
  const text = String(digest ?? "");
  return text ? text.replace(/^sha256:/, "").slice(0, 12) : "none";
}

/** A value of a setting: JSON, cut where it is long. */
export function shown(value, most = 120) {
  const text = typeof value === "string" ? JSON.stringify(value) : JSON.stringify(value) ?? "none";
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

const SIGNS = { spawn: "+", update: "~", swap: "±", cancel: "−", keep: "=" };

export const sign = (action) => SIGNS[action] ?? "?";

function countActions(actions) {
  const counts = new Map();
  for (const { action } of actions) counts.set(action, (counts.get(action) ?? 0) + 1);
  return [...counts].map(([action, number]) => `${number} ${action}`).join(", ");
}

const RESULT_TONES = { applied: "good", unchanged: "quiet", refused: "bad", reverted: "bad" };

export const resultTone = (result) => RESULT_TONES[result] ?? "quiet";

const PHASE_TONES = {
  running: "good",
  starting: "info",
  draining: "info",
  backing_off: "warn",
  stopped: "bad",
  failed: "bad",
};

export const phaseTone = (phase) => PHASE_TONES[phase] ?? "quiet";
export const phaseWords = (phase) => String(phase ?? "").replaceAll("_", " ");

const TRIGGER_WORDS = {
  start: "at the start",
  watch: "the files changed",
  poll: "the files changed",
  request: "asked for",
  signal: "by signal",
  rollback: "rolled back",
};

/** Why the daemon looked at its config. */
export const triggerWords = (trigger) => TRIGGER_WORDS[trigger] ?? String(trigger ?? "");

/** How many actions of each kind, those that keep a worker left out. */
export const countChanges = (actions) => countActions((actions ?? []).filter(({ action }) => action !== "keep"));

const STATE_TONES = {
  accepted: "quiet",
  waiting: "warn",
  sent: "info",
  stored: "good",
  taken: "good",
  working: "info",
  done: "good",
  refused: "bad",
  failed: "bad",
  expired: "bad",
  orphaned: "bad",
  rejected: "bad",
};

/** Of what became of a message, in the words that the command line and the metrics have, too. */
export const stateTone = (state) => STATE_TONES[state] ?? "quiet";
