// Shows what has arrived since the page was loaded: asks for the store's version and, when it is another
// one, puts the new page's <main> in place of the old. What is open stays open; nothing moves under the
// hands of who walks through the page by keyboard; the box in the header stops it.
"use strict";
const box = document.getElementById("refresh");
const state = document.getElementById("refresh-state");
box.closest("label").hidden = false;

function openAnchor() {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
}

async function look() {
  const main = document.querySelector("main");
  const answer = await fetch("/api/version", { cache: "no-store" });
  const { version } = await answer.json();
  if (version === main.dataset.version || main.querySelector(":focus-visible")) return;
  const html = await (await fetch(location.href, { cache: "no-store" })).text();
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const next = document.importNode(fresh.querySelector("main"), true);
  for (const { id } of main.querySelectorAll("details[open][id]")) {
    const again = next.querySelector(`#${CSS.escape(id)}`);
    if (again) again.open = true;
  }
  main.replaceWith(next);
  document.title = fresh.title;
}

async function refresh() {
  if (box.checked && !document.hidden && !String(getSelection())) {
    try {
      await look();
      state.textContent = "Live";
    } catch {
      state.textContent = "The viewer does not answer";
    }
  } else if (!box.checked) {
    state.textContent = "Paused";
  }
  setTimeout(refresh, 1500);
}

addEventListener("hashchange", openAnchor);
openAnchor();
refresh();
