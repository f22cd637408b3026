
// Keys for the pages on which people decide. Every form and link works without this script.
(() => {
  const live = document.createElement("div");
  live.className = "hidden";
  live.setAttribute("role", "status");
  live.setAttribute("aria-live", "polite");
  const ahead = new Map();
  let busy = false;

  const announce = (text) => { live.textContent = ""; setTimeout(() => { live.textContent = text; }, 30); };

  // Put another page of the desk in the place of this one, and keep the focus in a known place.
  const show = (html, url, push) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    const main = page.querySelector("main");
    if (!main) { location.assign(url); return; }
    document.querySelector("main").replaceWith(document.adoptNode(main));
    document.title = page.title;
    if (push) history.pushState(null, "", url);
    const heading = document.querySelector("main h1");
    if (heading) { heading.tabIndex = -1; heading.focus({ preventScroll: true }); }
    scrollTo(0, 0);
    const notice = document.getElementById("notice");
    announce([notice && notice.textContent, heading && heading.textContent].filter(Boolean).join(". ").replace(/\s+/g, " ").trim());
    look();
  };

  const load = async (url) => {
    const answer = await fetch(url, { headers: { accept: "text/html" } });
    return { html: await answer.text(), url: answer.url };
  };

  // The next item is loaded while the person reads this one.
  const look = () => {
    ahead.clear();
    const next = document.querySelector('main a[rel="next"]');
    if (next) ahead.set(next.href, load(next.href).catch(() => null));
  };

  const go = async (url) => {
    const page = (await ahead.get(url)) || (await load(url));
    show(page.html, page.url, true);
  };

  const send = async (form, button) => {
    if (busy) return;
    busy = true;
    form.setAttribute("aria-busy", "true");
    try {
      const body = new URLSearchParams(new FormData(form));
      if (button && button.name) body.append(button.name, button.value);
      const answer = await fetch(form.getAttribute("action"), { method: "POST", body, headers: { accept: "text/html" } });
      show(await answer.text(), answer.redirected ? answer.url : location.href, answer.redirected);
    } catch {
      form.removeAttribute("aria-busy");
      announce("The desk does not answer. Nothing is lost: try again.");
    } finally {
      busy = false;
    }
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.getAttribute("method") !== "post" || !form.closest("main") || !document.querySelector("main [data-key]")) return;
    event.preventDefault();
    send(form, event.submitter);
  });

  const isWritten = (element) => element.matches("input:not([type=radio]):not([type=checkbox]), textarea, select");

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
    const at = event.target;
    if (event.key === "Escape" && isWritten(at)) {
      at.blur();
      const heading = document.querySelector("main h1");
      if (heading) heading.focus();
      return;
    }
    if (isWritten(at)) return;
    const wanted = CSS.escape(event.key);
    const place = document.querySelector(`main [data-focus="${wanted}"]`);
    if (place) {
      const first = place.querySelector("select, input, textarea");
      const folded = place.closest("details");
      if (folded) folded.open = true;
      if (first) { event.preventDefault(); first.focus(); }
      return;
    }
    const target = document.querySelector(`main [data-key="${wanted}"]`);
    if (!target) return;
    event.preventDefault();
    if (target.matches("details")) { target.open = !target.open; target.querySelector("summary").focus(); }
    else if (target.matches("a")) go(target.href);
    else if (target.matches("form")) target.requestSubmit(target.querySelector("button"));
    else target.form.requestSubmit(target);
  });

  addEventListener("popstate", async () => {
    const page = await load(location.href);
    show(page.html, page.url, false);
  });

  document.body.append(live);
  if (document.querySelector("main [data-key]")) look();
  const heading = document.querySelector("main h1#item");
  if (heading) heading.focus({ preventScroll: true });
})();
