// Keeps a page up to date: when the feed has an event, the page is fetched again and its content replaced. A page with
// a form that may be half filled in is left as it is, with a line that says so.
"use strict";
(() => {
  document.documentElement.classList.add("js");
  const main = document.getElementById("main");
  const news = document.getElementById("news");
  const only = main.dataset.refund;
  const every = Number(main.dataset.every || 60) * 1000;
  const hasForm = "form" in main.dataset;
  const TYPES = ["initiated", "refunded", "declined", "stuck", "conflict", "resolved", "reopened"];
  const TOGETHER = 300, LATER = 4000, AGAIN = 30000;
  let source = null, timer = 0, later = 0, asking = false, missed = false;

  const keep = () => {
    const focused = document.activeElement;
    const open = [...main.querySelectorAll("details[id]")].map((each) => [each.id, each.open]);
    const ticked = [...main.querySelectorAll("[data-part] input:checked")].map((each) => each.id);
    return { ticked, id: main.contains(focused) ? focused.id : "", href: focused?.getAttribute?.("href") || "", inside: main.contains(focused), open };
  };

  const restore = (kept) => {
    for (const [id, open] of kept.open) {
      const found = document.getElementById(id);
      if (found) found.open = open;
    }
    for (const id of kept.ticked) {
      const found = document.getElementById(id);
      if (found) found.checked = true;
    }
    if (!kept.inside || main.contains(document.activeElement)) return;
    const links = [...main.querySelectorAll("a")];
    const again = (kept.id && document.getElementById(kept.id)) || links.find((each) => kept.href && each.getAttribute("href") === kept.href);
    if (again) again.focus({ preventScroll: true });
  };

  const replace = (page) => {
    const parts = [...main.querySelectorAll("[data-part]")];
    for (const [old, fresh] of parts.length ? parts.map((each) => [each, page.getElementById(each.id)]) : [[main, page.getElementById("main")]]) {
      old.replaceChildren(...fresh.childNodes);
    }
  };

  const load = async () => {
    if (asking) { missed = true; return; }
    asking = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
      if (answer.redirected) { location.assign(answer.url); return; }
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const kept = keep();
        replace(page);
        restore(kept);
      }
    } catch { /* The next event, or the next interval, tries again. */ } finally {
      asking = false;
      if (missed) { missed = false; soon(); }
    }
  };

  const soon = () => {
    if (!timer && !hasForm) timer = setTimeout(() => { timer = 0; load(); }, TOGETHER);
  };

  // The consequences of an event, such as its delivery, cause no further event.
  const andLater = () => {
    soon();
    clearTimeout(later);
    later = setTimeout(soon, LATER);
  };

  const onEvent = (type) => (message) => {
    const event = JSON.parse(message.data);
    if (only && event.subject !== only) return;
    news.textContent = `${new Date().toLocaleTimeString()}: refund ${event.subject} ${type}`;
    if (hasForm) news.textContent += ". This form shows how it was before: reload the page to see it as it is now.";
    andLater();
  };

  const listen = () => {
    source = new EventSource(main.dataset.feed);
    for (const type of TYPES) source.addEventListener(`amazonpay.refund.${type}`, onEvent(type));
    source.addEventListener("reset", soon);
    source.addEventListener("error", () => {
      if (source && source.readyState === EventSource.CLOSED) { source = null; setTimeout(begin, AGAIN); }
    });
  };

  const begin = () => {
    if (document.hidden || source) return;
    if (main.dataset.feed) { listen(); soon(); }
  };

  // Browsers open six connections to a host: a hidden page closes its own.
  const end = () => { if (source) { source.close(); source = null; } };
  document.addEventListener("visibilitychange", () => (document.hidden ? end() : begin()));
  window.addEventListener("pagehide", end);
  window.addEventListener("pageshow", begin);
  if (main.dataset.feed || main.dataset.every) setInterval(() => { if (!document.hidden) soon(); }, every);

  // The clipboard needs https, or this machine; elsewhere only the older way works.
  const copy = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    try {
      await copy(button.dataset.copy);
      button.firstElementChild.textContent = "Copied";
      news.textContent = `Copied ${button.dataset.copy}`;
      setTimeout(() => { button.firstElementChild.textContent = "Copy"; }, 2000);
    } catch { news.textContent = "The browser did not allow copying."; }
  });
})();
