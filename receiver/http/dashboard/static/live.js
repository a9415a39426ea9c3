// Keeps a page up to date: when the feed has an event, the page is fetched again and its content replaced.
"use strict";
(() => {
  const main = document.getElementById("main");
  const news = document.getElementById("news");
  const only = main.dataset.refund;
  const TYPES = ["initiated", "refunded", "declined", "stuck", "conflict"];
  const TOGETHER = 300, AGAIN = 30000;
  let source = null, timer = 0, asking = false, missed = false;

  const keep = () => {
    const focused = document.activeElement;
    const open = [...main.querySelectorAll("details[open]")].map((each) => each.id);
    return { id: main.contains(focused) ? focused.id : "", href: focused?.getAttribute?.("href") || "", inside: main.contains(focused), open };
  };

  const restore = (kept) => {
    for (const id of kept.open) {
      const found = id && document.getElementById(id);
      if (found) found.open = true;
    }
    if (!kept.inside) return;
    const links = [...main.querySelectorAll("a")];
    const again = (kept.id && document.getElementById(kept.id)) || links.find((each) => kept.href && each.getAttribute("href") === kept.href);
    if (again) again.focus({ preventScroll: true });
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
        main.replaceChildren(...page.getElementById("main").childNodes);
        restore(kept);
      }
    } catch { /* The next event, or the next half minute, tries again. */ } finally {
      asking = false;
      if (missed) { missed = false; soon(); }
    }
  };

  const soon = () => {
    if (!timer) timer = setTimeout(() => { timer = 0; load(); }, TOGETHER);
  };

  const onEvent = (type) => (message) => {
    const event = JSON.parse(message.data);
    if (only && event.subject !== only) return;
    news.textContent = `${new Date().toLocaleTimeString()}: refund ${event.subject} ${type}`;
    soon();
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
    listen();
    load();
  };

  // Browsers open six connections to a host: a hidden page closes its own.
  const end = () => { if (source) { source.close(); source = null; } };
  document.addEventListener("visibilitychange", () => (document.hidden ? end() : begin()));
  window.addEventListener("pagehide", end);
  window.addEventListener("pageshow", begin);
  setInterval(() => { if (!document.hidden) soon(); }, 60000);
})();
