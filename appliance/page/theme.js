// Sets the chosen theme before anything is painted; the button follows in main.js.
// A plain script on purpose: modules wait until the document is there.
"use strict";
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("appliance-theme");
  } catch {
    // storage is switched off: the system's choice it is
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
