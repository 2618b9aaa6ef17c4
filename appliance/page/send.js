// Sending a message, and what comes of it.

import { postLines } from "./api.js";
import { errorWords, whileBusy, writeButton } from "./dialogs.js";
import { byId, el, keepInStep, setHidden, setText } from "./dom.js";
import { Sending } from "./sending.js";

const MAX_KEPT = 10;
const MAX_TARGETS = 10_000;
const MAX_KNOWN = 1000;

const fields = {};
let sent = [];
let shownMethods = "";
let shownNodes = "";
let shownSenders = "";
let methods = [];

const labelled = (text, field, hint = null) =>
  el("div", { class: "field" }, el("label", { for: field.id }, text), field, hint);

function option(value, text = value) {
  return el("option", { value }, text);
}

const method = () => methods.find(({ name }) => name === fields.method.value);

/** The argument fields of the chosen method: one each where the config describes them. */
function drawArguments() {
  const found = method();
  setHidden(fields.hereBox, !found?.replies);
  if (found?.name.startsWith("REQToFile")) fields.options.open = true; // they need the name of a file
  drawFiles();
  const given = found?.args ?? null;
  setText(fields.about, found ? [found.summary, given === null && found.usage ? `takes ${found.usage}` : null].filter(Boolean).join("; ") : "");
  fields.arguments.replaceChildren(
    ...(given === null ? [wordsField(found)] : given.map((argument, index) => argumentField(argument, index))),
  );
}

function drawFiles() {
  setHidden(fields.files, fields.here.checked && Boolean(method()?.replies));
}

function wordsField(found) {
  const takesNone = found !== undefined && !found.usage;
  const field = el("textarea", { id: "send-arguments", rows: "2", spellcheck: "false", class: "code", "data-words": "", placeholder: found?.usage ?? "" });
  const node = labelled("Arguments, one per line", field);
  setHidden(node, takesNone);
  return node;
}

function argumentField(argument, index) {
  const id = `send-argument-${index}`;
  const name = `${argument.name}${argument.required ? "" : " (optional)"}`;
  if (argument.repeats) {
    return labelled(`${name}, one per line`, el("textarea", { id, rows: "2", spellcheck: "false", class: "code", "data-words": "" }));
  }
  if (argument.choices) {
    const choices = argument.choices.map((choice) => option(String(choice)));
    if (!argument.required) choices.unshift(option("", "–"));
    return labelled(name, el("select", { id, "data-one": "" }, choices));
  }
  const hint = argument.description ?? (argument.type === "text" ? null : argument.type);
  return labelled(name, el("input", { id, autocomplete: "off", spellcheck: "false", "data-one": "" }), hint ? el("p", { class: "quiet" }, hint) : null);
}

function readArguments() {
  const found = [];
  for (const field of fields.arguments.querySelectorAll("[data-one], [data-words]")) {
    if ("words" in field.dataset) found.push(...field.value.split("\n").filter((line) => line !== ""));
    else found.push(field.value);
  }
  while (found.length > 0 && found.at(-1) === "") found.pop(); // an argument that may be left out
  return found;
}

const readNodes = () => [...new Set(fields.to.value.split(/[\s,;]+/).filter(Boolean))].slice(0, MAX_TARGETS);

function readRequest() {
  const args = readArguments();
  const number = (field) => (field.value.trim() === "" ? undefined : Number(field.value));
  const span = (field) => field.value.trim() || undefined;
  // NB: an answer that is shown here only needs no file; what a method writes, and an answer that is filed, does
  return {
    to_nodes: readNodes(),
    method: fields.method.value,
    from_node: fields.from.value || undefined,
    method_args: args.length > 0 ? args : undefined,
    data: fields.data.value === "" ? undefined : [fields.data.value],
    ...(fields.here.checked && method()?.replies ? { for_caller: true } : { directory: span(fields.directory), file_name: span(fields.file) }),
    ack_timeout: span(fields.ackTimeout),
    retries: number(fields.retries),
    method_timeout: span(fields.methodTimeout),
  };
}

function draw() {
  keepInStep(fields.sent, sent, (item) => item.key, (item) => item.node);
}

async function send() {
  const request = readRequest();
  setText(fields.error, "");
  if (request.to_nodes.length === 0) {
    setText(fields.error, "Say which node it goes to.");
    fields.to.focus();
    return;
  }
  const item = new Sending(request);
  let isOpened = false;
  const take = (line) => {
    if (!isOpened) {
      isOpened = true;
      for (const old of sent.slice(MAX_KEPT - 1)) old.stop();
      sent = [item, ...sent].slice(0, MAX_KEPT);
      draw();
    }
    item.take(line);
  };
  const done = postLines(`api/v1/messages?job=send&wait=${fields.wait.value}`, request, take, item.stopped.signal);
  done.then(
    () => item.end(),
    (error) => {
      if (isOpened) item.end(error);
    },
  );
  // the button is free as soon as the message is on disk; a refusal is told beside it
  await Promise.race([done, item.opened]).catch((error) => {
    setText(fields.error, errorWords(error));
  });
}

function makeForm() {
  const make = (tag, id, props = {}) => el(tag, { id, autocomplete: "off", spellcheck: "false", ...props });
  fields.to = make("input", "send-to", { list: "send-nodes", placeholder: "ship1 ship2" });
  fields.nodes = el("datalist", { id: "send-nodes" });
  fields.from = make("select", "send-from");
  fields.method = make("select", "send-method", { "aria-describedby": "send-about" });
  fields.about = el("p", { id: "send-about", class: "quiet" });
  fields.arguments = el("div", { id: "send-arguments-box", class: "fields" });
  fields.data = make("textarea", "send-data", { rows: "2", class: "code" });
  fields.here = el("input", { id: "send-here", type: "checkbox", checked: true });
  fields.hereBox = el("label", { class: "check" }, fields.here, " show the answer here only, and file it nowhere");
  fields.directory = make("input", "send-directory");
  fields.file = make("input", "send-file");
  fields.files = el("div", { class: "fields" }, labelled("Directory", fields.directory), labelled("File name", fields.file));
  fields.wait = make("select", "send-wait");
  fields.wait.append(option("10s", "10 s"), option("30s", "30 s"), option("2m", "2 min"), option("15m", "15 min"));
  fields.wait.value = "30s";
  fields.ackTimeout = make("input", "send-ack-timeout", { placeholder: "as configured" });
  fields.retries = make("input", "send-retries", { inputmode: "numeric", type: "number", min: "0", placeholder: "as configured" });
  fields.methodTimeout = make("input", "send-method-timeout", { placeholder: "as configured" });
  fields.options = el(
    "details",
    { class: "fold-box" },
    el("summary", {}, "Options"),
    el(
      "div",
      { class: "fields" },
      labelled("Watch for", fields.wait),
      labelled("Time for the acknowledgement", fields.ackTimeout),
      labelled("Retries", fields.retries),
      labelled("Time for the method", fields.methodTimeout),
    ),
    fields.hereBox,
    fields.files,
  );
  fields.error = el("p", { class: "error", role: "alert" });
  fields.submit = writeButton("Send", { id: "send-button", class: "main-button", type: "submit" });
  fields.sent = el("ol", { class: "sendings", "aria-label": "Sent from this page" });
  const form = el(
    "form",
    { id: "send-form", class: "form" },
    el("div", { class: "fields" }, labelled("To", fields.to), labelled("Method", fields.method), labelled("From", fields.from)),
    fields.nodes,
    fields.about,
    fields.arguments,
    labelled("Data", fields.data),
    fields.options,
    el("div", { class: "form-end" }, fields.submit, fields.error),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    whileBusy(fields.submit, send);
  });
  return form;
}

function showMethodChoices(status) {
  const found = status.methods ?? [];
  const key = JSON.stringify(found);
  if (key === shownMethods) return;
  shownMethods = key;
  const chosen = fields.method.value;
  methods = found;
  const group = (label, source) => {
    const some = found.filter((item) => (item.source === "config") === (source === "config"));
    return some.length > 0 ? [el("optgroup", { label }, some.map(({ name }) => option(name)))] : [];
  };
  fields.method.replaceChildren(...group("Declared in the config", "config"), ...group("Built in", "builtin"));
  const names = found.map(({ name }) => name);
  fields.method.value = names.includes(chosen) ? chosen : names.includes("REQPing") ? "REQPing" : names[0] ?? "";
  drawArguments();
}

/** Nodes one may mean: those here, those that say hello, those that something is published to. */
function knownNodes(status) {
  const found = new Set(Object.keys(status.nodes ?? {}));
  for (const { node } of status.fleet ?? []) found.add(node);
  for (const { workers } of Object.values(status.nodes ?? {})) {
    for (const { kind, subject } of workers ?? []) {
      if (kind === "publisher" && subject) found.add(subject.split(".").slice(0, -2).join("."));
    }
  }
  found.delete("");
  return [...found].sort().slice(0, MAX_KNOWN);
}

export function showSend(status) {
  showMethodChoices(status);
  const nodes = knownNodes(status);
  if (nodes.join(" ") !== shownNodes) {
    shownNodes = nodes.join(" ");
    fields.nodes.replaceChildren(...nodes.map((node) => option(node)));
  }
  const senders = Object.keys(status.nodes ?? {}).slice(0, MAX_KNOWN);
  if (senders.join(" ") !== shownSenders) {
    shownSenders = senders.join(" ");
    const chosen = fields.from.value;
    fields.from.replaceChildren(option("", "chosen by the daemon"), ...senders.map((node) => option(node)));
    fields.from.value = senders.includes(chosen) ? chosen : "";
  }
}

export function startSend() {
  byId("send-body").append(makeForm(), fields.sent);
  fields.method.addEventListener("change", drawArguments);
  fields.here.addEventListener("change", drawFiles);
}
