// The config: which set is in force, what is wrong with the one in the files, and what would change.

import { get, post } from "./api.js";
import { confirmed, errorWords, whileBusy, writeButton } from "./dialogs.js";
import { byId, el, keepInStep, say, setHidden, setText, setTone, toast } from "./dom.js";
import { askSoon } from "./poll.js";
import { ActionTable, ProblemList } from "./problems.js";
import { ago, clock, countChanges, duration, moment, plural, resultTone, shortDigest, span, triggerWords } from "./words.js";

const MAX_PATHS = 10;

const problems = new ProblemList("Problems of the config");
const actions = new ActionTable("What a reload would do");
const parts = {
  facts: el("dl", { class: "pairs" }),
  note: el("p", { class: "note", hidden: true }),
  planTitle: el("h3", { hidden: true }),
  planNote: el("p", { class: "quiet", hidden: true }),
  overridesTitle: el("h3", { hidden: true }, "Changed by hand"),
  overrides: el("ul", { class: "plain" }),
};
let takeFiles = null;
let latest = null;
/** What the shown plan is about; it is asked for anew when that changes. */
let planKey = null;
let isWanted = false;

function makePair({ name }) {
  const value = el("dd");
  const node = el("div", {}, el("dt", {}, name), value);
  node.update = ({ text, isCode, title, tone }) => {
    setText(value, text);
    value.classList.toggle("code", Boolean(isCode));
    if (title) value.title = title;
    setTone(value, tone ?? "");
  };
  return node;
}

function describePaths(paths) {
  const some = (paths ?? []).slice(0, MAX_PATHS);
  const hidden = (paths ?? []).length - some.length;
  return some.join("\n") + (hidden > 0 ? `\nand ${hidden} more` : "");
}

function describeAttempt(attempt) {
  if (!attempt) return { text: "none yet" };
  return {
    text: `${attempt.result} at ${clock(attempt.at)}, ${ago(attempt.at)} (${triggerWords(attempt.trigger)}, ${duration(attempt.duration_seconds)})`,
    title: moment(attempt.at),
    tone: resultTone(attempt.result) === "bad" ? "bad" : null,
  };
}

function pairs(status) {
  const config = status.config ?? {};
  const isSame = !config.seen_digest || config.seen_digest === config.digest;
  const revision = [config.revision, config.branch && `on ${config.branch}`, config.dirty && "files differ from it"];
  return [
    { name: "In force", text: config.digest ?? "none", isCode: true },
    ...(isSame ? [] : [{ name: "In the files", text: config.seen_digest, isCode: true, tone: "warn" }]),
    ...(config.revision ? [{ name: "Revision", text: revision.filter(Boolean).join(", "), isCode: true }] : []),
    { name: "Files", text: describePaths(config.paths), isCode: true },
    { name: "Last look", ...describeAttempt(config.last_attempt) },
  ];
}

function describeNote(config) {
  const pin = config.pinned;
  if (pin) {
    const what = pin.reason === "rollback" ? `Rolled back${pin.by ? ` by ${pin.by}` : ""}` : "Went back after a trial that failed";
    return [`${what}, ${ago(pin.since)}: an older set is pinned until the files change.`, "warn"];
  }
  if (config.on_trial) {
    const left = span(config.on_trial.ends_in_seconds ?? 0);
    return [`On trial for another ${left}: if a worker of it fails, the set ${shortDigest(config.on_trial.baseline)} is put back in force.`, "info"];
  }
  if (config.last_attempt?.result === "refused") {
    const problemsFound = config.last_attempt.problems.filter((problem) => problem.severity !== "warning").length;
    return [`The config in the files is refused (${plural(problemsFound, "problem")}). Nothing changed: the set in force runs on.`, "bad"];
  }
  if (config.last_attempt?.result === "reverted") return ["The last set did not stand its trial and was taken back.", "bad"];
  return [null, ""];
}

function makeOverride({ worker, node, action, by, at }) {
  return el("li", {}, el("span", { class: "code" }, worker), ` on ${node}: ${action}${by ? ` by ${by}` : ""}, ${ago(at)}, until the next reload`);
}

/** Whether what runs is not what the files say; a text that changes when there is reason to ask again. */
function differenceOf(status) {
  const config = status.config ?? {};
  const overrides = (status.overrides ?? []).map(({ worker, action }) => `${worker} ${action}`).join(" ");
  const differs = (config.seen_digest && config.seen_digest !== config.digest) || config.pinned;
  const standing = `${config.digest} ${config.seen_digest} ${status.generation} ${config.last_attempt?.result} ${overrides}`;
  return { differs: Boolean(differs || overrides), standing };
}

async function showPlan(standing) {
  planKey = standing;
  let plan;
  try {
    // while an older set is pinned nothing would happen of itself: what taking the files would do is told
    plan = await get(latest?.config?.pinned ? "api/v1/plan?force=true" : "api/v1/plan");
  } catch (error) {
    if (planKey !== standing) return;
    actions.show([]);
    setText(parts.planTitle, "What a reload would do");
    setText(parts.planNote, errorWords(error));
    setHidden(parts.planTitle, false);
    setHidden(parts.planNote, false);
    return;
  }
  if (planKey !== standing) return;
  const found = plan.actions ?? [];
  const counted = countChanges(found);
  const settings = plan.settings ?? {};
  const isRefused = plan.result === "refused";
  const words = [counted, Object.keys(settings).length ? plural(Object.keys(settings).length, "setting") : ""].filter(Boolean).join(", ");
  setText(parts.planTitle, isRefused ? "A reload would be refused" : "What a reload would do");
  setText(parts.planNote, words || (isRefused ? "for the problems above" : "nothing: what runs is what the files say"));
  setHidden(parts.planTitle, false);
  setHidden(parts.planNote, false);
  actions.show(found, settings);
  // the verdict's problems are those of the plan as long as nothing pins an older set
  const shownProblems = latest?.config?.last_attempt?.problems ?? [];
  problems.show(isRefused || shownProblems.length === 0 ? plan.problems ?? [] : shownProblems);
}

function hidePlan() {
  planKey = null;
  setHidden(parts.planTitle, true);
  setHidden(parts.planNote, true);
  actions.show([]);
}

export function showConfig(status) {
  latest = status;
  const config = status.config ?? {};
  keepInStep(parts.facts, pairs(status), (pair) => pair.name, makePair);
  const [note, tone] = describeNote(config);
  setHidden(parts.note, note === null);
  setText(parts.note, note ?? "");
  setTone(parts.note, tone);
  const attempt = config.last_attempt;
  setText(byId("config-sum"), attempt ? `${attempt.result} ${ago(attempt.at)}` : "");
  setHidden(takeFiles, !config.pinned);
  const overrides = status.overrides ?? [];
  setHidden(parts.overridesTitle, overrides.length === 0);
  keepInStep(parts.overrides, overrides.slice(0, 50), (item) => JSON.stringify(item), makeOverride);
  const { differs, standing } = differenceOf(status);
  if (planKey !== null && planKey !== standing) isWanted = false;
  if (!differs && !isWanted) {
    problems.show(config.last_attempt?.problems ?? []);
    hidePlan();
  } else if (planKey !== standing) {
    problems.show(config.last_attempt?.problems ?? []);
    showPlan(standing);
  }
}

async function compare() {
  isWanted = true;
  const { standing } = differenceOf(latest ?? {});
  planKey = null;
  await showPlan(standing);
  say(`${parts.planTitle.textContent}: ${parts.planNote.textContent}`);
}

/** What became of a reload or rollback, in a notice. */
export function tellVerdict(verdict, words) {
  const errors = (verdict.problems ?? []).filter((problem) => problem.severity !== "warning");
  if (verdict.result === "refused") {
    toast(`${words} was refused: ${errors[0]?.message ?? "no reason given"}`, "bad");
  } else {
    const counted = countChanges(verdict.actions);
    const why = (verdict.problems ?? [])[0]?.message;
    toast(`${words}: ${verdict.result}, generation ${verdict.generation}${counted ? ` (${counted})` : ""}${why ? `. ${why}` : ""}`);
  }
  askSoon();
}

async function reload() {
  let verdict = await post("api/v1/reload", {});
  const excess = (verdict.problems ?? []).find((problem) => problem.code === "E302");
  if (verdict.result === "refused" && excess) {
    const answer = await confirmed({
      title: "Cancel that many workers?",
      text: `The reload was refused: it ${excess.message}.`,
      yes: "Reload all the same",
    });
    if (answer === null) {
      askSoon();
      return;
    }
    verdict = await post("api/v1/reload", { force: true });
  }
  tellVerdict(verdict, "Reload");
}

async function unpin() {
  const answer = await confirmed({
    title: "Take the files as they are?",
    text: "The set in the files comes into force again, and the older one is no longer pinned.",
    yes: "Take the files",
  });
  if (answer !== null) tellVerdict(await post("api/v1/reload", { force: true }), "Taking the files");
}

export function startConfig() {
  takeFiles = writeButton("Take the files as they are", { id: "take-files", hidden: true });
  takeFiles.addEventListener("click", () => whileBusy(takeFiles, unpin));
  byId("config-body").append(
    parts.note,
    el("p", { class: "note-tools" }, takeFiles),
    problems.node,
    parts.planTitle,
    parts.planNote,
    actions.node,
    parts.overridesTitle,
    parts.overrides,
    parts.facts,
  );
  byId("compare").addEventListener("click", (event) => whileBusy(event.currentTarget, compare));
  byId("reload").addEventListener("click", (event) => whileBusy(event.currentTarget, reload));
}
