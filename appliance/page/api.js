// The way to the API, and the token. The token lives in this tab's session storage and goes out as a
// bearer token with what needs it; it is never part of an address.

import { noteServerTime } from "./words.js";

const TOKEN_KEY = "appliance-token";
const TIMEOUT_MS = 10_000;

export class ApiError extends Error {
  constructor(status, message, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

let token = null;
try {
  token = sessionStorage.getItem(TOKEN_KEY);
} catch {
  // no storage: the token lives as long as the page
}

/** Whether this page may write, and whether a token would let it. */
export const access = { mayWrite: false, tokenConfigured: true };

const listeners = new Set();

export function onAccess(listener) {
  listeners.add(listener);
  listener(access);
}

function tellAccess() {
  for (const listener of listeners) listener(access);
}

function keepToken(value) {
  token = value;
  try {
    if (value === null) sessionStorage.removeItem(TOKEN_KEY);
    else sessionStorage.setItem(TOKEN_KEY, value);
  } catch {
    // see above
  }
}

function authorization(value = token) {
  return value === null ? {} : { Authorization: `Bearer ${value}` };
}

/** Ask what the kept token lets us do. A token that no longer holds is forgotten. */
export async function checkAccess() {
  let answer = await fetch("api/v1/access", { headers: authorization(), cache: "no-store" });
  if (answer.status === 401) {
    keepToken(null);
    answer = await fetch("api/v1/access", { cache: "no-store" });
  }
  if (answer.ok) noteAccess(await answer.json());
}

function noteAccess(facts) {
  access.mayWrite = Boolean(facts.may_write);
  access.tokenConfigured = Boolean(facts.token_configured);
  tellAccess();
}

/** Try a token; why it is not taken, or null when it is. */
export async function unlock(value) {
  let answer;
  try {
    answer = await fetch("api/v1/access", { headers: authorization(value), cache: "no-store" });
  } catch (error) {
    // what cannot stand in a header (letters beyond Latin-1, line ends) is no token either
    return error instanceof TypeError && !/^[\x20-\x7e\xa0-\xff]*$/.test(value)
      ? "This is not the token."
      : "The daemon does not answer. Try again.";
  }
  if (answer.status === 401) return "This is not the token.";
  if (!answer.ok) return await errorText(answer);
  const facts = await answer.json();
  // who has a name may be here to look
  if (!facts.may_write && !facts.name) return "No token is configured: set admin.token to allow writing.";
  keepToken(value);
  noteAccess(facts);
  return null;
}

export function lock() {
  keepToken(null);
  access.mayWrite = false;
  tellAccess();
}

async function errorText(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text).error ?? `the daemon answered ${answer.status}`;
  } catch {
    return `the daemon answered ${answer.status}`;
  }
}

/** GET with the token. With one that is not accepted any more, what everybody may see is shown until it is needed. */
export async function look(path, accept, signal) {
  const ask = (headers) => fetch(path, { headers: { Accept: accept, ...headers }, cache: "no-store", signal });
  const answer = await ask(authorization());
  if (answer.status !== 401 || token === null) return answer;
  const openly = await ask({});
  if (openly.status === 401) lock();
  return openly;
}

/** GET, decoded. The token goes along: without it plans and the history show no values. */
export async function get(path) {
  const answer = await look(path, "application/json", AbortSignal.timeout(TIMEOUT_MS));
  noteServerTime(answer.headers.get("Date"));
  if (!answer.ok) throw new ApiError(answer.status, await errorText(answer), null);
  return await answer.json();
}

async function postRaw(path, body, headers, signal) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers, ...authorization() },
    body: JSON.stringify(body),
    cache: "no-store",
    signal,
  });
  if (answer.status === 401) {
    lock();
    throw new ApiError(401, "The token is not accepted (any more). Unlock again.", null);
  }
  return answer;
}

/** POST, decoded; a refusal with a verdict in it is an answer and no error. */
export async function post(path, body) {
  const answer = await postRaw(path, body, { Accept: "application/json" });
  const found = await answer.json().catch(() => null);
  if (!answer.ok && !(answer.status === 422 && found?.result)) {
    throw new ApiError(answer.status, found?.error ?? `the daemon answered ${answer.status}`, found);
  }
  return found;
}

/** POST whose answer is one JSON value per line, each handed to `take` as it comes. */
export async function postLines(path, body, take, signal) {
  const answer = await postRaw(path, body, { Accept: "application/x-ndjson" }, signal);
  if (!answer.ok) throw new ApiError(answer.status, await errorText(answer), null);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) take(JSON.parse(line));
    if (done) return;
  }
}
