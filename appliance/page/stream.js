// Server-sent events, read by hand: a browser's own reader cannot take events of kinds it was not told
// of, and gives every single one a turn, so that a storm of them would stand the page still.

import { look } from "./api.js";

const QUIET_MS = 40_000; // the daemon sends a comment every 15 s
const FIRST_WAIT_MS = 500;
const MAX_WAIT_MS = 10_000;
const MAX_FRAMES = 200;
const MAX_REST_CHARACTERS = 4_000_000;

/**
 * Follows one address until it is stopped, and connects again by itself.
 * `take(events, skipped)` gets the newest of each batch and how many more there were;
 * `tell(isLive, why)` when the connection comes or goes.
 */
export class EventReader {
  constructor(address, take, tell) {
    this.address = address;
    this.take = take;
    this.tell = tell;
    this.waitMs = FIRST_WAIT_MS;
    this.stopped = null;
    this.timer = 0;
  }

  start() {
    if (this.stopped === null) this.run();
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.stopped?.abort();
    this.stopped = null;
  }

  /** Do not wait any longer: there is reason to think that it works again. */
  hurry() {
    if (this.timer === 0) return;
    this.stop();
    this.waitMs = FIRST_WAIT_MS;
    this.start();
  }

  async run() {
    const stopped = new AbortController();
    this.stopped = stopped;
    this.timer = 0;
    let why = "the daemon ended it";
    try {
      await this.read(stopped);
    } catch (error) {
      why = error instanceof TypeError || error?.name === "AbortError" ? "no connection" : String(error?.message ?? error);
    }
    if (this.stopped !== stopped) return;
    stopped.abort();
    this.tell(false, why);
    this.timer = setTimeout(() => this.run(), this.waitMs);
    this.waitMs = Math.min(MAX_WAIT_MS, this.waitMs * 2);
  }

  async read(stopped) {
    let watchdog = 0;
    const feed = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => stopped.abort(), QUIET_MS);
    };
    feed();
    try {
      const answer = await look(this.address, "text/event-stream", stopped.signal);
      if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.error ?? `the daemon answered ${answer.status}`);
      this.waitMs = FIRST_WAIT_MS;
      this.tell(true, "");
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        feed();
        const frames = (rest + value).split("\n\n");
        rest = frames.pop();
        if (rest.length > MAX_REST_CHARACTERS) throw new Error("an event without an end");
        this.handOver(frames.filter((frame) => !frame.startsWith(":")));
      }
    } finally {
      clearTimeout(watchdog);
    }
  }

  handOver(frames) {
    if (frames.length === 0) return;
    // only what can be shown is taken apart
    const events = [];
    for (const frame of frames.slice(-MAX_FRAMES)) {
      const line = frame.split("\n").find((found) => found.startsWith("data: "));
      if (line !== undefined) events.push(JSON.parse(line.slice("data: ".length)));
    }
    this.take(events, frames.length - events.length);
  }
}
