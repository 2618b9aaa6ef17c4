// The fleet: every node that says hello here, or should, and whether its config is the one in force here.

import { byId, cell, el, keepInStep, makeTable, pill, setHidden, setText, setTone } from "./dom.js";
import { ago, count, moment, plural, shortDigest } from "./words.js";

const MAX_ROWS = 200;
const ORDER = ["refused", "silent", "behind", "undeclared", "unknown", "in_sync"];
const TONES = { in_sync: "good", behind: "warn", refused: "bad", silent: "bad", undeclared: "warn", unknown: "quiet" };
const UNDECLARED = "runs, and no config here declares it";

const COLUMNS = {
  node: { name: "Node", class: "wide" },
  state: { name: "State" },
  config: { name: "Config", class: "wide digest" },
  hello: { name: "Last hello", class: "number since" },
};

const parts = {};
let latest = [];
let ownVersion = null;

const words = (state) => String(state).replaceAll("_", " ");
const rank = ({ state }) => (ORDER.indexOf(state) + ORDER.length + 1) % (ORDER.length + 1);

function makeRow() {
  const node = el("span", { class: "code" });
  const state = pill("", "quiet");
  const config = el("span", { class: "code" });
  const version = el("span", { class: "quiet below" });
  const configCell = cell(COLUMNS.config, config, version);
  const hello = el("span");
  const traits = el("span", { class: "quiet below" });
  const problem = el("span", { class: "foreign below", "data-tone": "bad" });
  const row = el(
    "tr",
    { role: "row" },
    cell(COLUMNS.node, node, traits, problem),
    cell(COLUMNS.state, state),
    configCell,
    cell(COLUMNS.hello, hello),
  );
  row.update = (item) => {
    setText(node, item.node);
    // as commands choose it by them
    const labels = Object.entries(item.labels ?? {}).map(([name, value]) => `${name}=${value}`);
    setText(traits, [...(item.roles ?? []).map((role) => `@${role}`), ...labels].join("  "));
    setHidden(traits, traits.textContent === "");
    setText(state, words(item.state));
    setTone(state, TONES[item.state] ?? "quiet");
    const revision = item.revision ? String(item.revision).slice(0, 10) + (item.dirty ? "+" : "") : null;
    setText(config, item.applied ? revision ?? shortDigest(item.applied) : "–");
    config.title = item.applied ?? "";
    configCell.classList.toggle("empty", !item.applied);
    setText(version, item.version ? `generation ${item.generation}${item.version === ownVersion ? "" : `, version ${item.version}`}` : "");
    setText(hello, ago(item.last_hello_at));
    hello.title = moment(item.last_hello_at);
    const why = item.state === "undeclared" ? UNDECLARED : item.first_problem ?? "";
    setText(problem, why);
    setHidden(problem, !why);
  };
  return row;
}

function draw(fleet) {
  const isAll = parts.all.checked;
  const wanted = fleet.filter((item) => isAll || item.state !== "in_sync").sort((a, b) => rank(a) - rank(b) || (a.node < b.node ? -1 : 1));
  const shown = wanted.slice(0, MAX_ROWS);
  keepInStep(parts.body, shown, (item) => item.node, makeRow);
  setHidden(parts.table, shown.length === 0);
  const hidden = wanted.length - shown.length;
  const inSync = fleet.filter((item) => item.state === "in_sync").length;
  const rest = hidden > 0 ? `and ${plural(hidden, "node")} more` : shown.length === 0 ? `All ${count(inSync)} in sync.` : "";
  setText(parts.rest, rest);
  setHidden(parts.rest, rest === "");
}

export function showFleet(status) {
  latest = status.fleet ?? [];
  ownVersion = status.version ?? null;
  const isHere = latest.length > 0;
  setHidden(byId("fleet"), !isHere);
  setHidden(byId("nav-fleet"), !isHere);
  if (!isHere) return;
  const counts = ORDER.map((state) => [state, latest.filter((item) => item.state === state).length]).filter(([, number]) => number > 0);
  setText(byId("fleet-sum"), `${plural(latest.length, "node")}: ${counts.reverse().map(([state, number]) => `${count(number)} ${words(state)}`).join(", ")}`);
  draw(latest);
}

export function startFleet() {
  const { table, addBody } = makeTable("Nodes of the fleet", Object.values(COLUMNS));
  parts.table = table;
  table.classList.add("fleet-table");
  parts.body = addBody();
  parts.rest = el("p", { class: "quiet" });
  parts.all = el("input", { id: "fleet-all", type: "checkbox" });
  parts.all.addEventListener("change", () => draw(latest));
  byId("fleet-tools").append(el("label", { class: "check" }, parts.all, " those in sync too"));
  byId("fleet-body").append(el("div", { class: "scroll-box", tabindex: "0", role: "group", "aria-label": "Nodes of the fleet" }, table), parts.rest);
}
