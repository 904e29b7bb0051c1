// Shows what has arrived since the page was loaded: asks for the store's version and, when it is another one,
// puts the new page's <main> in place of the old; not while somebody selects text or walks by keyboard.
"use strict";
const state = document.getElementById("state");

async function look() {
  const main = document.querySelector("main");
  const { version } = await (await fetch("/v1/version", { cache: "no-store" })).json();
  if (version === main.dataset.version || main.querySelector(":focus-visible")) return;
  const html = await (await fetch(location.href, { cache: "no-store" })).text();
  const fresh = new DOMParser().parseFromString(html, "text/html");
  main.replaceWith(document.importNode(fresh.querySelector("main"), true));
}

async function refresh() {
  if (!document.hidden && !String(getSelection())) {
    try {
      await look();
      state.textContent = "Live";
    } catch {
      state.textContent = "No answer";
    }
  }
  setTimeout(refresh, 2000);
}

refresh();
