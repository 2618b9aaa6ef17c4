// The top of the page: who this is, whether all is well, and the facts one asks for first.

import { ApiError } from "./api.js";
import { byId, el, keepInStep, say, setHidden, setText, setTone } from "./dom.js";
import { age, ago, count, moment, plural, shortDigest, span, wallClock } from "./words.js";

const MAX_NAMES = 6;

let lastHealth = null;

function describeHealth(status) {
  if (status.stopping) return ["stopping", "warn"];
  return status.healthy ? ["healthy", "good"] : ["degraded", "bad"];
}

function facts(status) {
  const config = status.config ?? {};
  const broker = status.broker ?? {};
  const outbox = status.outbox ?? {};
  const store = status.store ?? {};
  const revision = config.revision ? String(config.revision).slice(0, 10) : "none";
  const git = config.revision
    ? [config.branch, config.dirty ? "files differ from it" : null].filter(Boolean).join(", ")
    : "not in a Git repository";
  return [
    { name: "Generation", value: String(status.generation ?? 0), more: `applied ${ago(config.applied_at)}`, title: moment(config.applied_at) },
    { name: "Config", value: shortDigest(config.digest), more: standing(config), isCode: true, title: config.digest, tone: standingTone(config) },
    { name: "Revision", value: revision, more: git, isCode: Boolean(config.revision), title: config.revision, tone: config.dirty ? "warn" : null },
    {
      name: "Broker",
      value: broker.connected ? "connected" : "not connected",
      more: [broker.server, broker.embedded ? "embedded" : null, broker.reconnects ? plural(broker.reconnects, "reconnect") : null].filter(Boolean).join(" · "),
      tone: broker.connected ? null : "bad",
    },
    {
      name: "Outbox",
      value: `${count(outbox.pending)} pending`,
      more: [
        `${count(outbox.in_flight)} in flight`,
        `${count(outbox.dead)} dead`,
        outbox.pending ? `oldest ${span(outbox.oldest_seconds)}` : null,
        store.state && store.state !== "ok" ? `store ${store.state.replaceAll("_", " ")}` : null,
      ].filter(Boolean).join(" · "),
      tone: store.state && store.state !== "ok" ? "bad" : outbox.dead ? "warn" : null,
    },
    { name: "Uptime", value: age(status.started_at), more: `version ${status.version ?? "?"} · pid ${status.pid ?? "?"}`, title: moment(status.started_at) },
  ];
}

function standing(config) {
  if (config.pinned) return config.pinned.reason === "rollback" ? "pinned: rolled back" : "pinned: went back after a trial";
  if (config.on_trial) return `on trial, ${span(config.on_trial.ends_in_seconds ?? 0)} left`;
  if (config.seen_digest && config.seen_digest !== config.digest) return "the files differ";
  return "as the files say";
}

function standingTone(config) {
  if (config.pinned) return "warn";
  if (config.on_trial) return "info";
  return config.seen_digest && config.seen_digest !== config.digest ? "warn" : null;
}

function makeFact() {
  const value = el("span", { class: "fact-value" });
  const more = el("span", { class: "fact-more" });
  const name = el("dt");
  const node = el("div", { class: "fact" }, name, el("dd", {}, value, more));
  node.update = (fact) => {
    setText(name, fact.name);
    setText(value, fact.value);
    setText(more, fact.more ?? "");
    value.classList.toggle("code", Boolean(fact.isCode));
    if (fact.title) node.title = fact.title;
    node.dataset.tone = fact.tone ?? "";
  };
  return node;
}

export function showOverview(status) {
  const names = Object.keys(status.nodes ?? {});
  const rest = names.length - MAX_NAMES;
  const nodes = names.slice(0, MAX_NAMES).join(", ") + (rest > 0 ? ` and ${rest} more` : "");
  setText(byId("node-names"), nodes);
  const [words, tone] = describeHealth(status);
  setText(byId("health"), words);
  setTone(byId("health"), tone);
  document.title = `${tone === "good" ? "" : "! "}${names.length === 1 ? names[0] : nodes || "appliance"} – appliance`;
  const reasons = status.degraded_by ?? [];
  setHidden(byId("reasons"), reasons.length === 0);
  keepInStep(byId("reasons"), reasons, (reason) => reason, (reason) => el("li", {}, reason));
  if (lastHealth !== null && lastHealth !== words) say(`The appliance is ${words}. ${reasons.join(". ")}`);
  lastHealth = words;
  keepInStep(byId("facts"), facts(status), (fact) => fact.name, makeFact);
  setText(byId("version"), `appliance ${status.version ?? ""}`);
  const dead = status.outbox?.dead ?? 0;
  setHidden(byId("dead-count"), dead === 0);
  setText(byId("dead-count"), dead ? ` ${count(dead)} dead` : "");
}

let factsFromMs = null;
let isLost = false;

/** Whether the daemon answers; with an error, that it does not, and of when the shown facts are. */
export function showContact(error) {
  const node = byId("contact");
  if (error === null) {
    if (isLost) say("The daemon answers again.");
    isLost = false;
    factsFromMs = Date.now();
    setText(node, "");
    delete document.documentElement.dataset.stale;
    return;
  }
  if (!isLost) say("The daemon does not answer. What is shown is old.");
  isLost = true;
  setText(byId("health"), "no answer");
  setTone(byId("health"), "bad");
  const why = error instanceof ApiError ? `An error for an answer (${error.message})` : "No answer";
  const since = factsFromMs === null ? "" : ` since ${wallClock(factsFromMs)} (${span((Date.now() - factsFromMs) / 1000)}): this is what was known then`;
  setText(node, `${why}${since}. Trying again.`);
  document.documentElement.dataset.stale = "yes";
  document.title = document.title.replace(/^(\? |! )?/, "? ");
}
