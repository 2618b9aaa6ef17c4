// The two dialogs: is this meant, and what is the token. And the rest of being locked or not.

import { access, ApiError, checkAccess, lock, onAccess, unlock } from "./api.js";
import { button, byId, say, setHidden, setText, toast } from "./dom.js";

/**
 * Ask whether something is meant. Resolves to null, or to `{checked}` of the option, if one is given.
 */
export function confirmed({ title, text, yes, option = null, destroys = false }) {
  const dialog = byId("confirm-dialog");
  setText(byId("confirm-title"), title);
  setText(byId("confirm-text"), text);
  setText(byId("confirm-yes"), yes);
  byId("confirm-yes").classList.toggle("destroys", destroys);
  setHidden(byId("confirm-option"), option === null);
  setText(byId("confirm-check-text"), option ?? "");
  byId("confirm-check").checked = false;
  return new Promise((resolve) => {
    let answer = null;
    const form = byId("confirm-form");
    const accept = (event) => {
      event.preventDefault();
      answer = { checked: byId("confirm-check").checked };
      dialog.close();
    };
    form.addEventListener("submit", accept);
    dialog.addEventListener(
      "close",
      () => {
        form.removeEventListener("submit", accept);
        resolve(answer);
      },
      { once: true },
    );
    dialog.showModal();
    byId("confirm-cancel").focus();
  });
}

function openTokenDialog() {
  setText(byId("token-error"), "");
  byId("token").value = "";
  byId("token-dialog").showModal();
  byId("token").focus();
}

async function submitToken(event) {
  event.preventDefault();
  const field = byId("token");
  setText(byId("token-error"), "");
  const refusal = field.value ? await unlock(field.value) : "Enter the token.";
  if (refusal !== null) {
    setText(byId("token-error"), refusal);
    field.setAttribute("aria-invalid", "true");
    field.select();
    return;
  }
  field.value = "";
  field.removeAttribute("aria-invalid");
  byId("token-dialog").close();
  say("Unlocked: this page may write now.");
}

function applyTo(control) {
  control.disabled = !access.mayWrite;
  if (access.mayWrite) control.removeAttribute("title");
  else control.title = "Read-only: unlock with the token first";
}

/** A button of something that writes: it works while the page is unlocked. */
export function writeButton(text, props = {}) {
  const made = button(text, { "data-write": "", ...props });
  applyTo(made);
  return made;
}

/** Do what a button stands for, once at a time; what goes wrong is told. */
export async function whileBusy(control, work) {
  if (control.getAttribute("aria-busy") === "true") return;
  control.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    toast(errorWords(error), "bad");
  } finally {
    control.removeAttribute("aria-busy");
  }
}

/** Why a request failed. A browser's own words for a lost connection help nobody. */
export function errorWords(error) {
  if (error instanceof ApiError) return error.message;
  if (error?.name === "TimeoutError") return "The daemon did not answer in time.";
  if (error instanceof TypeError) return "The daemon does not answer.";
  return String(error?.message ?? error);
}

export function startDialogs() {
  byId("confirm-cancel").addEventListener("click", () => byId("confirm-dialog").close());
  byId("token-cancel").addEventListener("click", () => byId("token-dialog").close());
  byId("token-form").addEventListener("submit", submitToken);
  byId("unlock").addEventListener("click", () => {
    if (access.mayWrite && access.tokenConfigured) {
      lock();
      say("Locked: this page reads only.");
    } else openTokenDialog();
  });
  onAccess(() => {
    setText(byId("unlock"), access.mayWrite ? "Lock" : "Unlock");
    setHidden(byId("unlock"), !access.tokenConfigured);
    setText(
      byId("send-lock"),
      access.mayWrite
        ? ""
        : access.tokenConfigured
          ? "read-only: unlock with the token to send"
          : "read-only: no admin.token is configured",
    );
    for (const control of document.querySelectorAll("[data-write]")) applyTo(control);
  });
  return checkAccess();
}
