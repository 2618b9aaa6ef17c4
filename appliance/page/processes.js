// Processes for methods that compute: what each is at, and how often it had to be started again.

import { byId, cell, el, keepInStep, makeTable, setHidden, setText, setTone } from "./dom.js";
import { count, plural } from "./words.js";

const COLUMNS = {
  name: { name: "Process" },
  phase: { name: "Phase", class: "wide" },
  handled: { name: "Done", class: "number" },
  restarts: { name: "Restarts", class: "number" },
};

let body = null;

function makeRow({ number }) {
  const pid = el("span", { class: "below quiet" });
  const phase = el("span");
  const more = el("span", { class: "below" });
  const handled = el("span");
  const restarts = el("span");
  const row = el(
    "tr",
    { role: "row" },
    cell(COLUMNS.name, el("span", {}, String(number)), pid),
    cell(COLUMNS.phase, phase, more),
    cell(COLUMNS.handled, handled),
    cell(COLUMNS.restarts, restarts),
  );
  row.update = (process) => {
    setText(pid, process.pid ? `pid ${process.pid}` : "");
    setText(phase, process.phase.replace("_", " "));
    setText(more, process.error ?? process.doing ?? "");
    setTone(more, process.error ? "bad" : "quiet");
    setText(handled, count(process.handled));
    setText(restarts, count(process.restarts));
  };
  return row;
}

export function showProcesses(status) {
  const processes = status.processes ?? [];
  setHidden(byId("processes"), processes.length === 0);
  setHidden(byId("nav-processes"), processes.length === 0);
  setText(byId("processes-sum"), `${plural(processes.length, "process", "processes")} for methods that compute`);
  keepInStep(body, processes, (item) => item.number, makeRow);
}

export function startProcesses() {
  const { table, addBody } = makeTable("Processes", Object.values(COLUMNS));
  body = addBody();
  byId("processes-body").append(table);
}
