"use strict";
// The page refreshes itself: its main part is loaded again and put in place of the old one, unless
// a person is at work in it. Without a script, the page's own <meta> loads it again.
(() => {
  const seconds = Number(document.body.dataset.refresh || 0);
  if (!seconds) return;
  const isBusy = () => {
    const active = document.activeElement;
    const selection = document.getSelection();
    const inForm = active && active.closest("form, details[open], [tabindex='0']");
    return document.hidden || inForm || (selection && !selection.isCollapsed);
  };
  const refresh = async () => {
    if (isBusy()) return;
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "error" });
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const open = [...document.querySelectorAll("main details")].map((each) => each.open);
    if (isBusy()) return;
    document.querySelector("main").replaceChildren(...page.querySelector("main").childNodes);
    document.querySelectorAll("main details").forEach((each, number) => { each.open = open[number] || false; });
    document.querySelector(".made").textContent = page.querySelector(".made").textContent;
  };
  const loop = async () => {
    try {
      await refresh();
      document.querySelector(".made").classList.remove("bad");
    } catch {
      // The desk is away: the time of the figures says how old they are.
      document.querySelector(".made").classList.add("bad");
    }
    setTimeout(loop, seconds * 1000);
  };
  setTimeout(loop, seconds * 1000);
})();
