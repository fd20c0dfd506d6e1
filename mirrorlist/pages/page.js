// Makes pages quicker for people whose browser runs it. Everything works without:
// links lead where they say, forms are sent.
"use strict";
(() => {
  // Moments in the time zone of who reads.
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const times = (root) => {
    for (const t of root.querySelectorAll("time[datetime]")) {
      const at = new Date(t.dateTime);
      if (!isNaN(at)) {
        t.title = t.textContent;
        t.textContent = local.format(at);
      }
    }
  };

  // A part of a page that a form or a link changes is fetched, and put in the place
  // of the old one. Only the last answer counts.
  let asked = 0;
  const load = async (url, into, focus) => {
    const mine = ++asked;
    const old = document.querySelector(into);
    old.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(url, { headers: { Accept: "text/html" } });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (mine !== asked) return false;
      const part = page.querySelector(into);
      times(part);
      document.querySelector(into).replaceWith(part);
      for (const form of document.querySelectorAll("form[data-live]")) {
        const now = form.querySelector("[data-state]"), then = page.querySelector("form[data-live] [data-state]");
        if (now && then) now.replaceWith(then);
        const go = form.querySelector(".go"), went = page.querySelector("form[data-live] .go");
        if (go && went && !go.contains(document.activeElement)) go.replaceWith(went);
      }
      if (focus) {
        const again = [...part.querySelectorAll("a[data-live]")].find((a) => a.textContent === focus);
        if (again) again.focus();
      }
      return true;
    } catch {
      if (mine === asked) location.assign(url);
      return false;
    }
  };
  const go = async (url, into, focus) => {
    if (await load(url, into, focus)) history.pushState({ into }, "", url);
  };
  const urlOf = (form) => {
    const given = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value) given.append(name, value);
    const query = given.toString();
    return form.getAttribute("action") + (query ? "?" + query : "");
  };

  document.addEventListener("click", (e) => {
    const link = e.target.closest("a[data-live]");
    if (link && !e.metaKey && !e.ctrlKey && !e.shiftKey && !e.altKey && e.button === 0) {
      e.preventDefault();
      go(link.href, link.dataset.live, link.textContent);
    }
    const copy = e.target.closest("button[data-copy]");
    if (copy) {
      navigator.clipboard.writeText(document.getElementById(copy.dataset.copy).textContent).then(
        () => { copy.textContent = "Copied"; },
        () => { copy.textContent = "Not allowed"; });
    }
  });
  for (const form of document.querySelectorAll("form[data-live]")) {
    let wait;
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      clearTimeout(wait);
      go(urlOf(form), form.dataset.live);
    });
    form.addEventListener("input", (e) => {
      clearTimeout(wait);
      wait = setTimeout(() => go(urlOf(form), form.dataset.live), e.target.type === "search" ? 300 : 0);
    });
  }
  // Back and forward: the form has to say what the page shows, so it is loaded.
  addEventListener("popstate", () => location.reload());

  for (const button of document.querySelectorAll("button[data-copy][hidden]")) button.hidden = false;
  times(document);
})();
