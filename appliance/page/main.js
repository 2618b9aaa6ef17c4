// Puts the page together: what is shown comes from one poll of the state, the events tell when to look at once.

import { checkAccess, onAccess } from "./api.js";
import { showConfig, startConfig } from "./config.js";
import { startDialogs } from "./dialogs.js";
import { byId, say, setText, toast } from "./dom.js";
import { startEvents } from "./events.js";
import { showFleet, startFleet } from "./fleet.js";
import { showHistory, startHistory } from "./history.js";
import { showInputs, startInputs } from "./inputs.js";
import { showJobs, startJobs } from "./jobs.js";
import { showMethods, startMethods } from "./methods.js";
import { showOutbox, startOutbox } from "./outbox.js";
import { showContact, showOverview } from "./overview.js";
import { drawPlots, startPlots } from "./plots.js";
import { onContact, onState, startPolling } from "./poll.js";
import { showProcesses, startProcesses } from "./processes.js";
import { showSend, startSend } from "./send.js";
import { Traffic } from "./series.js";
import { showWorkers, startWorkers } from "./workers.js";

const THEME_KEY = "appliance-theme";
const THEMES = ["auto", "light", "dark"];

function startTheme() {
  const button = byId("theme");
  const show = () => setText(button, `Theme: ${document.documentElement.dataset.theme ?? "auto"}`);
  button.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme ?? "auto";
    const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      if (next === "auto") localStorage.removeItem(THEME_KEY);
      else localStorage.setItem(THEME_KEY, next);
    } catch {
      // no storage: the choice holds as long as the page
    }
    show();
    say(`Theme: ${next}`);
  });
  show();
}

const traffic = new Traffic();
let shownGeneration = null;
let shownVersion = null;

/** What may have come with another config, or another program. */
function followChanges(status) {
  if (shownGeneration !== null && status.generation !== shownGeneration) checkAccess().catch(() => {}); // asked again with the next
  shownGeneration = status.generation;
  if (shownVersion !== null && status.version !== shownVersion) {
    toast(`The daemon is version ${status.version} now; load this page again to get the one that belongs to it.`, "warn");
  }
  shownVersion = status.version;
}

function show(status, totals, atMs) {
  followChanges(status);
  showOverview(status);
  drawPlots(traffic.take(totals, status.outbox, atMs), atMs);
  showWorkers(status, atMs);
  showConfig(status);
  showSend(status);
  showHistory(status);
  showJobs(status);
  showOutbox(status);
  showFleet(status);
  showProcesses(status);
  showInputs(status);
  showMethods(status);
  document.documentElement.dataset.shown = "yes";
}

startTheme();
startPlots();
startWorkers();
startConfig();
startSend();
startHistory();
startJobs();
startOutbox();
startFleet();
startProcesses();
startInputs();
startMethods();
onContact(showContact);
onState(show);
onAccess((access) => {
  document.documentElement.dataset.access = access.mayWrite ? "write" : "read";
});
startDialogs().catch(() => {}); // no answer: polling tells that, and asks again when there is one
startPolling();
startEvents();
