// Asks for the state again and again, while somebody looks; and at once when something happened.

import { checkAccess, get } from "./api.js";

const INTERVAL_MS = 2000;
const MAX_INTERVAL_MS = 15_000;
/** Of the time between two polls, at most one part in so many is spent on asking. */
const SHARE = 8;
/** Things that happen in a burst are one look. */
const SOON_MS = 120;

const stateListeners = new Set();
const contactListeners = new Set();
let timer = 0;
let isAsking = false;
let isAskedAgain = false;
let hasContact = null;

/** `listener(status, traffic, atMs)` for every answer. */
export function onState(listener) {
  stateListeners.add(listener);
}

/** `listener(error)` for every attempt; null when it was answered. */
export function onContact(listener) {
  contactListeners.add(listener);
}

function tellContact(error) {
  // a daemon that was restarted may have another token, or none
  if (error === null && hasContact === false) checkAccess().catch(() => {});
  hasContact = error === null;
  for (const listener of contactListeners) listener(error);
}

async function ask() {
  if (isAsking) {
    isAskedAgain = true;
    return;
  }
  clearTimeout(timer);
  isAsking = true;
  const startedMs = performance.now();
  const [found, error] = await Promise.all([get("api/v1/status"), get("api/v1/traffic")]).then(
    (answers) => [answers, null],
    (reason) => [null, reason],
  );
  const tookMs = performance.now() - startedMs;
  isAsking = false;
  const waitMs = isAskedAgain ? SOON_MS : Math.min(MAX_INTERVAL_MS, Math.max(INTERVAL_MS, SHARE * tookMs));
  isAskedAgain = false;
  // asked while somebody looked, answered when nobody did: who hears of it would ask for more; all of it is asked anew later
  if (document.hidden) return;
  timer = setTimeout(ask, waitMs);
  tellContact(error);
  if (found !== null) for (const listener of stateListeners) listener(...found, performance.now());
}

/** Something happened: look shortly. */
export function askSoon() {
  if (isAsking) isAskedAgain = true;
  else if (!document.hidden) {
    clearTimeout(timer);
    timer = setTimeout(ask, SOON_MS);
  }
}

/**
 * `ask` as a function that runs it alone. Who calls it while it runs has it run once more: what is under way may have been
 * read before that for which it is asked again. `ask` throws nothing.
 */
export function oneAtATime(ask) {
  let running = null;
  let isWanted = false;
  const work = async () => {
    while (isWanted) {
      isWanted = false;
      await ask();
    }
    running = null;
  };
  return () => {
    isWanted = true;
    running ??= work();
    return running;
  };
}

export function startPolling() {
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else ask();
  });
  return ask();
}
