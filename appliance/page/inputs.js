// Steward's inputs: what is open, and what came in.

import { byId, cell, el, keepInStep, makeTable, setHidden, setText, setTone } from "./dom.js";
import { count, plural } from "./words.js";

const COLUMNS = {
  name: { name: "Input" },
  place: { name: "Where", class: "wide" },
  accepted: { name: "Accepted", class: "number" },
  refused: { name: "Refused", class: "number" },
};

let body = null;

function makeRow({ name }) {
  const place = el("span", { class: "code" });
  const more = el("span", { class: "below" });
  const accepted = el("span");
  const refused = el("span");
  const row = el(
    "tr",
    { role: "row" },
    cell(COLUMNS.name, name),
    cell(COLUMNS.place, place, more),
    cell(COLUMNS.accepted, accepted),
    cell(COLUMNS.refused, refused),
  );
  row.update = ({ found }) => {
    setText(place, found.path ?? found.listen ?? "not open");
    const facts = [
      found.error,
      found.waiting ? `${plural(found.waiting, "file")} waiting` : null,
      found.connections ? plural(found.connections, "connection") : null,
    ];
    setText(more, facts.filter(Boolean).join(" · "));
    setTone(more, found.error ? "bad" : "quiet");
    setText(accepted, count(found.accepted));
    setText(refused, count(found.refused));
  };
  return row;
}

export function showInputs(status) {
  const inputs = Object.entries(status.inputs ?? {});
  setHidden(byId("inputs"), inputs.length === 0);
  setHidden(byId("nav-inputs"), inputs.length === 0);
  keepInStep(body, inputs.map(([name, found]) => ({ name, found })), (item) => item.name, makeRow);
}

export function startInputs() {
  const { table, addBody } = makeTable("Inputs", Object.values(COLUMNS));
  body = addBody();
  byId("inputs-body").append(table);
}
