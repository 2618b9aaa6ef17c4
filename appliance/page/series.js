// What successive polls say about time: rates, and delivery times between two polls.

export const KEPT_MS = 5 * 60_000;
/** Over less time than this a rate is chance. */
const MIN_STEP_MS = 1000;

/** The value below which `share` of the durations lie, interpolated within its bucket; null for none. */
export function percentile(before, after, share) {
  const counts = after.buckets.map(([bound, total], index) => [bound, total - (before.buckets[index]?.[1] ?? 0)]);
  const all = counts.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  const wanted = share * all;
  let below = 0;
  let least = 0;
  for (const [bound, total] of counts) {
    if (total >= wanted) {
      if (bound === null) return least;
      return least + (bound - least) * ((wanted - below) / Math.max(1, total - below));
    }
    below = total;
    least = bound ?? least;
  }
  return least;
}

/** Keeps the last minutes of totals; `take` returns what happened since the poll before. */
export class Traffic {
  constructor() {
    this.points = [];
    this.last = null;
  }

  take(totals, outbox, atMs) {
    const before = this.last;
    if (before !== null && atMs - before.atMs < MIN_STEP_MS && totals.handled >= before.totals.handled) return this.points;
    this.last = { totals, atMs };
    // a daemon that was restarted begins at zero, and a laptop that slept knows nothing of the time between
    if (before === null || atMs - before.atMs > 30_000) return this.points;
    const seconds = (atMs - before.atMs) / 1000;
    const since = (name) => Math.max(0, totals[name] - before.totals[name]) / seconds;
    if (totals.handled < before.totals.handled || totals.accepted < before.totals.accepted) return this.points;
    const times = [before.totals.delivery_seconds, totals.delivery_seconds];
    this.points.push({
      atMs,
      handled: since("handled"),
      delivered: since("acked"),
      troubled: since("failed") + since("missed") + since("dead"),
      median: percentile(...times, 0.5),
      slow: percentile(...times, 0.95),
      pending: outbox.pending,
      inFlight: totals.in_flight,
    });
    while (this.points.length > 0 && this.points[0].atMs < atMs - KEPT_MS) this.points.shift();
    return this.points;
  }
}

/** Rates of single counters, by key. */
export class Rates {
  constructor() {
    this.before = new Map();
    this.rates = new Map();
    this.atMs = -Infinity;
  }

  /** Of every counter what it grew by per second; unknown for those seen for the first time. */
  take(counters, atMs) {
    if (atMs - this.atMs < MIN_STEP_MS) return this.rates;
    this.atMs = atMs;
    const rates = new Map();
    const next = new Map();
    for (const [key, value] of counters) {
      const old = this.before.get(key);
      if (old && atMs > old.atMs) rates.set(key, Math.max(0, value - old.value) / ((atMs - old.atMs) / 1000));
      next.set(key, { value, atMs });
    }
    this.before = next;
    this.rates = rates;
    return rates;
  }
}
