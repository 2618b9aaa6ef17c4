// One message that was sent from the page: a row per node, with its delivery and what it answered.

import { errorWords } from "./dialogs.js";
import { button, el, pill, say, setHidden, setText, setTone } from "./dom.js";
import { clock, duration, plural, stateTone } from "./words.js";

const MAX_ROWS = 100;
/** Of one node's answer; of a longer one the end is shown. */
const MAX_CHARACTERS = 64 * 1024;
const DRAW_MS = 100;

let count = 0;

class Target {
  constructor(to) {
    this.to = to;
    this.state = pill("…", "quiet");
    this.note = el("span", { class: "foreign quiet" });
    this.text = "";
    this.isCut = false;
    this.isSettled = false;
    this.output = el("pre", { class: "output", tabindex: "0", role: "group", "aria-label": `Answer of ${to}`, hidden: true });
    this.node = el("li", { class: "target" }, el("p", { class: "target-head" }, el("span", { class: "code" }, to), " ", this.state, " ", this.note), this.output);
  }

  tell(words, tone, note = "") {
    setText(this.state, words);
    setTone(this.state, tone);
    setText(this.note, note);
  }

  /** Where the message stands. */
  stand(line, notes) {
    this.tell(line.state, stateTone(line.state), notes.filter(Boolean).join(", "));
  }

  add(text) {
    if (!text) return;
    this.text += text;
    if (this.text.length > MAX_CHARACTERS) {
      this.text = this.text.slice(-MAX_CHARACTERS);
      this.isCut = true;
    }
  }

  draw() {
    setHidden(this.output, this.text === "");
    const shown = this.isCut ? `… what came before is left out\n${this.text}` : this.text;
    if (this.output.textContent === shown) return;
    const isAtEnd = this.output.scrollTop + this.output.clientHeight >= this.output.scrollHeight - 4;
    this.output.textContent = shown;
    if (isAtEnd && this.isStreamed) this.output.scrollTop = this.output.scrollHeight;
  }
}

export class Sending {
  constructor(request) {
    count += 1;
    this.key = count;
    this.request = request;
    this.stopped = new AbortController();
    this.opened = new Promise((resolve) => {
      this.tellOpened = resolve;
    });
    this.targets = new Map();
    this.isOver = false;
    this.timer = 0;
    const what = [request.method, ...(request.method_args ?? [])].join(" ");
    this.list = el("ul", { class: "targets" });
    this.state = el("span", { class: "quiet" }, "under way");
    this.stopButton = button("Stop watching", { class: "small" });
    this.stopButton.addEventListener("click", () => this.stop());
    this.rest = el("p", { class: "quiet", hidden: true }, `More nodes than the ${MAX_ROWS} shown; the sum counts all.`);
    this.node = el(
      "li",
      { class: "sending" },
      el(
        "p",
        { class: "sending-head" },
        el("span", { class: "code what" }, what.length > 120 ? `${what.slice(0, 120)}…` : what),
        el("span", { class: "quiet" }, clock(new Date().toISOString())),
        this.state,
        this.stopButton,
      ),
      this.list,
      this.rest,
    );
  }

  /** Stop watching; the message itself goes its way. */
  stop() {
    this.stopped.abort();
  }

  take(line) {
    this.tellOpened();
    if (line.event === "end") {
      this.close(line);
      return;
    }
    if (line.event === "events_lost") return;
    const target = this.target(line.to);
    if (target !== null) this.tell(target, line);
    if (this.timer === 0) this.timer = setTimeout(() => this.draw(), DRAW_MS);
  }

  target(to) {
    let found = this.targets.get(to);
    if (found === undefined) {
      if (this.targets.size >= MAX_ROWS) {
        setHidden(this.rest, false);
        return null;
      }
      found = new Target(to);
      this.targets.set(to, found);
      this.list.append(found.node);
    }
    return found;
  }

  tell(target, line) {
    switch (line.event) {
      case "accepted":
        target.from = line.from;
        target.tell(line.state, "quiet", line.note ?? "");
        break;
      case "rejected":
        target.tell("not accepted", "bad", line.reason + (this.request.for_caller && /no answer could/.test(line.reason) ? "; or let the answer be filed, see the options" : ""));
        break;
      case "missed":
        target.stand(line, [line.why, line.attempt ? `attempt ${line.attempt}` : null, `next in ${duration(line.next_in_seconds)}`]);
        break;
      case "delivered":
        // an answer may be quicker than the word that its question arrived
        if (!target.isAnswered) target.stand(line, [`in ${duration(line.seconds)}`]);
        break;
      case "waits":
      case "sent":
      case "working":
        if (!target.isAnswered) target.stand(line, [line.why]);
        break;
      case "refused":
      case "dead":
        target.stand(line, [line.why]);
        break;
      case "reply":
        this.reply(target, line);
        break;
      default:
        target.tell(line.event, "quiet");
    }
  }

  reply(target, line) {
    target.add(line.data);
    target.add(line.stderr);
    if (line.is_cut || line.truncated) target.add("\n… the answer is longer\n");
    target.isAnswered = true;
    target.isStreamed ||= Boolean(line.has_more);
    const status = line.exit_status;
    const hasFailed = status !== null && status !== undefined && status !== "0";
    if (line.has_more) target.tell("answering", "info");
    else target.tell(hasFailed ? `exit ${status}` : "answered", hasFailed ? "bad" : "good", target.text === "" ? "nothing said" : "");
  }

  draw() {
    this.timer = 0;
    for (const target of this.targets.values()) target.draw();
  }

  close(line) {
    this.isOver = true;
    this.draw();
    const parts = [
      line.delivered ? `${line.delivered} delivered` : null,
      line.failed ? `${line.failed} failed` : null,
      line.waiting?.length ? `${line.waiting.length} still waiting in the outbox` : null,
      line.unanswered?.length ? `no answer of ${line.unanswered.slice(0, 5).join(", ")}${line.unanswered.length > 5 ? " …" : ""}` : null,
      line.lost_events ? `${plural(line.lost_events, "event")} not seen` : null,
    ];
    const words = parts.filter(Boolean).join(", ") || "done";
    setText(this.state, words);
    setHidden(this.stopButton, true);
    say(`${this.request.method}: ${words}`);
  }

  /** The stream is over, with `close` or without. */
  end(error = null) {
    this.draw();
    setHidden(this.stopButton, true);
    if (this.isOver) return;
    setText(this.state, error?.name === "AbortError" ? "no longer watched; the message goes its way" : `no longer watched: ${error ? errorWords(error) : "the daemon ended it"}`);
  }
}
