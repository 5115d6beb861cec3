// Shows times in the reader's zone, and whether the page is live. Everything else comes from the server.
"use strict";
(() => {
  const format = (...options) => new Intl.DateTimeFormat(undefined, Object.assign({}, ...options));
  const day = { day: "2-digit", month: "short" };
  const minute = { hour: "2-digit", minute: "2-digit" };
  const second = { ...minute, second: "2-digit" };
  const year = { year: "numeric" };
  // Each for this year, and for any other.
  const full = [format(day, minute), format(day, minute, year)];
  const shown = { seconds: [format(second), format(second)], exact: [format(day, second), format(day, second, year)] };
  const title = format({ dateStyle: "full", timeStyle: "long" });
  const [hours, days] = [format(minute), format(day)];
  const { timeZone } = format().resolvedOptions();

  const localise = (root) => {
    for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
      const at = new Date(time.dateTime);
      const [now, dated] = shown[time.dataset.show] ?? full;
      time.textContent = (at.getFullYear() === new Date().getFullYear() ? now : dated).format(at);
      time.title = title.format(at);
    }
    for (const text of root.querySelectorAll("text[data-at]")) {
      const at = new Date(text.dataset.at);
      text.textContent = (text.textContent.includes(":") ? hours : days).format(at);
      delete text.dataset.at;
    }
    for (const zone of root.querySelectorAll("[data-zone]")) {
      zone[zone instanceof HTMLInputElement ? "value" : "textContent"] = timeZone;
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
  document.body.addEventListener("htmx:sendError", ({ detail }) => {
    if (detail.requestConfig.verb === "post") {
      detail.target.textContent = "csms does not answer. Reload the page to see whether it was done.";
    }
  });
  htmx.onLoad((added) => localise(added.parentNode ?? document));
  localise(document);
})();
