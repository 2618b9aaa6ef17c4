// The jobs: what commands of operators asked of whom, what came of it at each node, and the output, as text.

import { access, get, onAccess, post } from "./api.js";
import { confirmed, errorWords, whileBusy, writeButton } from "./dialogs.js";
import { byId, cell, el, keepInStep, makeTable, pill, setHidden, setText, setTone, toast } from "./dom.js";
import { askSoon, oneAtATime } from "./poll.js";
import { ago, count, moment, plural, stateTone } from "./words.js";

const MAX_JOBS = 20;
const MAX_SHOWN_BYTES = 200_000;

const COLUMNS = {
  node: { name: "Node" },
  state: { name: "State", class: "wide" },
};

const parts = {};
let shownKey = "";

const place = (job, more = "") => `api/v1/jobs/${encodeURIComponent(job.id)}${more}`;

function countWords({ total = 0, done = 0, failed = 0, silent = 0 }) {
  const words = [`${count(done)} of ${count(total)} done`];
  if (failed) words.push(`${count(failed)} failed`);
  if (silent) words.push(`${count(silent)} open`);
  return words.join(", ");
}

function countTone({ failed = 0, silent = 0 }) {
  if (failed) return "bad";
  return silent ? "warn" : "good";
}

function whatWords(job) {
  const args = (job.args ?? []).map((text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text}'`));
  const text = [job.method || job.command, ...args].join(" ");
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

function nodeWords(node) {
  const words = [];
  if (node.why) words.push(node.why);
  if (node.exit_status !== null && node.exit_status !== undefined) words.push(`exit ${node.exit_status}`);
  else if (node.is_status_unknown && node.kind === "failed") words.push("exit status unknown");
  if (node.stopped_after_seconds) words.push(`stopped after ${node.stopped_after_seconds} s`);
  if (node.is_truncated || node.is_cut) words.push("its output is not complete");
  if (node.forgotten_bytes) words.push(`the first ${count(node.forgotten_bytes)} bytes are not kept`);
  if (node.not_filed) words.push(`not filed: ${node.not_filed}`);
  else if (node.filed && node.is_answered) words.push(`filed at ${node.filed}`);
  if (node.stopped) words.push(node.stopped);
  return words.join(" · ");
}

function makeNode(node) {
  const state = pill("", "quiet");
  const words = el("span", { class: "foreign" });
  const row = el(
    "tr",
    { role: "row" },
    cell(COLUMNS.node, el("span", { class: "code" }, node.file ? `${node.to}: ${node.file}` : node.to)),
    cell(COLUMNS.state, state, " ", words),
  );
  row.update = (found) => {
    setText(state, found.state);
    setTone(state, found.kind === "failed" ? "bad" : stateTone(found.state));
    setText(words, nodeWords(found));
  };
  return row;
}

/** What was said, by node, in the order in which it came. */
async function readOutput(job) {
  const said = new Map();
  let size = 0;
  let after = 0;
  while (after !== null && size < MAX_SHOWN_BYTES) {
    const found = await get(place(job, `/output?after=${after}`));
    for (const piece of found.pieces) {
      const key = `${piece.to} ${piece.stream}`;
      const one = said.get(key) ?? { to: piece.to, stream: piece.stream, text: "" };
      one.text += piece.data;
      size += piece.data.length;
      said.set(key, one);
    }
    after = found.next ?? null;
  }
  return { said: [...said.values()], isWhole: after === null };
}

function makeOutput(one) {
  const name = one.stream === "stderr" ? `${one.to}, error output` : one.to;
  const text = el("pre", { class: "output", tabindex: "0", role: "group", "aria-label": `Output of ${name}` });
  const node = el("div", {}, el("p", { class: "quiet" }, name), text);
  node.update = (found) => setText(text, found.text);
  return node;
}

function tellWords({ nodes }, title) {
  const isGood = nodes.every(({ done }) => done);
  toast(`${title}: ${nodes.map(({ to, words }) => `${to}: ${words}`).join("; ")}`, isGood ? "good" : "warn");
}

class Details {
  constructor(job) {
    this.job = job;
    const table = makeTable(`Nodes of job ${job.id}`, Object.values(COLUMNS));
    this.rows = table.addBody();
    this.cancel = writeButton("Cancel", { class: "small", "aria-label": `Cancel job ${job.id}` });
    this.retry = writeButton("Retry", { class: "small", "aria-label": `Retry job ${job.id}` });
    this.trouble = el("p", { class: "error" });
    this.outputs = el("div");
    this.note = el("p", { class: "quiet", hidden: true });
    this.about = el("p", { class: "quiet" });
    this.node = el("div", {}, this.about, el("p", { class: "list-tools" }, this.cancel, " ", this.retry), this.trouble, table.table, this.outputs, this.note);
    this.cancel.addEventListener("click", () => whileBusy(this.cancel, () => this.end()));
    this.retry.addEventListener("click", () => whileBusy(this.retry, () => this.again()));
  }

  async end() {
    const text = "What waits is taken back, and programs that run are ended.";
    if ((await confirmed({ title: `Cancel job ${this.job.id}?`, text, yes: "Cancel the job", destroys: true })) === null) return;
    tellWords(await post(place(this.job, "/cancel"), {}), `Job ${this.job.id}`);
    await this.refresh();
    askSoon();
  }

  async again() {
    tellWords(await post(place(this.job, "/retry"), {}), `Job ${this.job.id}`);
    await this.refresh();
    askSoon();
  }

  async refresh() {
    try {
      const job = await get(place(this.job));
      const by = job.by ? ` by ${job.by}` : "";
      const ended = job.cancelled_by ? `; cancelled by ${job.cancelled_by}` : "";
      const files = (job.files ?? []).map(({ to, counts }) => `; ${to}: ${countWords(counts)}`).join("");
      setText(this.about, `${moment(job.at)}, from ${job.from}${by}${ended}${files}`);
      // of a copy of many files those that are not done
      const nodes = (job.nodes ?? []).filter((node) => !job.files || node.kind !== "done");
      keepInStep(this.rows, nodes, (node) => `${node.to} ${node.id_text}`, makeNode);
      setHidden(this.cancel, !job.counts.silent);
      setHidden(this.retry, !job.counts.failed);
      setText(this.trouble, "");
      await this.showOutput(job);
    } catch (error) {
      setText(this.trouble, errorWords(error));
    }
  }

  async showOutput(job) {
    if (!access.mayWrite) {
      setText(this.note, "What was asked and said is shown with the token.");
      setHidden(this.note, false);
      return;
    }
    const { said, isWhole } = await readOutput(job);
    keepInStep(this.outputs, said, (one) => `${one.to} ${one.stream}`, makeOutput);
    setText(this.note, isWhole ? "" : `More than the page shows: appliance jobs output ${job.id}`);
    setHidden(this.note, isWhole);
  }
}

function makeJob(job) {
  const state = pill("", "quiet");
  const when = el("span", { class: "quiet", title: moment(job.at) });
  const what = el("span", { class: "code foreign" });
  const box = el("details", { class: "fold-box job" }, el("summary", {}, state, " ", what, " ", when));
  let details = null;
  let key = "";
  const look = (found) => {
    const next = `${access.mayWrite} ${found.bytes} ${JSON.stringify(found.counts)} ${found.cancelled_by ?? ""}`;
    if (!box.open || next === key) return;
    key = next;
    if (details === null) {
      details = new Details(found);
      box.append(details.node);
    }
    details.refresh();
  };
  let latest = job;
  box.addEventListener("toggle", () => look(latest));
  box.update = (found) => {
    latest = found;
    setText(state, countWords(found.counts));
    setTone(state, countTone(found.counts));
    setText(what, whatWords(found));
    setText(when, `${found.command} ${found.id}, ${ago(found.at)}`);
    look(found);
  };
  return box;
}

const refresh = oneAtATime(async () => {
  try {
    const { jobs } = await get(`api/v1/jobs?limit=${MAX_JOBS}`);
    keepInStep(parts.list, jobs, (job) => job.id, makeJob);
    setHidden(parts.none, jobs.length > 0);
    setText(parts.trouble, "");
  } catch (error) {
    setText(parts.trouble, errorWords(error));
    shownKey = ""; // asked for again with the next look
  }
});

export function showJobs(status) {
  const { open = 0, kept = 0, bytes = 0 } = status.jobs ?? {};
  setText(byId("jobs-sum"), `${plural(kept, "job")} kept, ${count(open)} open`);
  const key = `${status.started_at} ${kept} ${open} ${bytes}`;
  if (key !== shownKey || open > 0) {
    shownKey = key;
    refresh();
  }
}

export function startJobs() {
  parts.none = el("p", { class: "quiet" }, "No jobs: exec, send and cp make them.");
  parts.trouble = el("p", { class: "error" });
  parts.list = el("div", { class: "jobs" });
  byId("jobs-body").append(parts.trouble, parts.none, parts.list);
  onAccess(() => {
    if (shownKey !== "") refresh(); // with the token there is more to see, and without it less
  });
}
