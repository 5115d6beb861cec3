// Shows times in the reader's zone, and whether the page is live. Everything else comes from the server.
"use strict";
(() => {
  const full = new Intl.DateTimeFormat(undefined, { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit" });
  const seconds = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
  const shown = { seconds, exact: new Intl.DateTimeFormat(undefined, { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" }) };
  const hours = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  const days = new Intl.DateTimeFormat(undefined, { day: "2-digit", month: "short" });

  const localise = (root) => {
    for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
      const at = new Date(time.dateTime);
      time.textContent = (shown[time.dataset.show] ?? full).format(at);
      time.title = exact.format(at);
    }
    for (const text of root.querySelectorAll("text[data-at]")) {
      const at = new Date(text.dataset.at);
      text.textContent = (text.textContent.includes(":") ? hours : days).format(at);
      delete text.dataset.at;
    }
    for (const zone of root.querySelectorAll("[data-zone]")) {
      zone.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
    }
  };

  const link = document.getElementById("link");
  const live = (on) => {
    if (!link) return;
    link.hidden = false;
    link.classList.toggle("lost", !on);
    link.lastElementChild.textContent = on ? "live" : "reconnecting";
  };
  document.body.addEventListener("htmx:sseOpen", () => live(true));
  document.body.addEventListener("htmx:sseError", () => live(false));
  htmx.onLoad((added) => localise(added.parentNode ?? document));
  localise(document);
})();
