/* The list of models and a model's page: rows that are live, tabs that ask while they are shown, a log that follows. */
(() => {
  "use strict";

  // For hx-trigger: whether an element is seen, so that a hidden tab asks nothing.
  window.mhShown = (element) => window.mhVisible() && element.offsetParent !== null;
  // For hx-vals: what the page shows of each row, so that only rows that changed are sent.
  window.mhRows = () => [...document.querySelectorAll("[data-mh-row]")].map((cell) => cell.dataset.mhRow).join(",");
  // For hx-vals: the window of the metrics that is chosen.
  window.mhWindow = () => {
    const chosen = document.querySelector('[data-mh-window][aria-pressed="true"]');
    return chosen ? chosen.dataset.mhWindow : "";
  };

  // A log: paused by its button; it stops following while somebody reads further up.
  const pauseOf = (log) => document.querySelector(`[data-mh-pause="${log.id}"]`);
  const isPaused = (log) => pauseOf(log) && pauseOf(log).getAttribute("aria-pressed") === "true";
  window.mhFollows = (element) => {
    const log = document.getElementById("mh-log");
    return window.mhShown(element.parentElement) && Boolean(log) && !isPaused(log);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-mh-pause]");
    if (!button) return;
    const log = document.getElementById(button.dataset.mhPause);
    const pause = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(pause));
    button.textContent = pause ? "Follow" : "Pause";
    log.dataset.mhFollow = pause ? "off" : "on";
    if (!pause) log.scrollTop = log.scrollHeight;
  });
  document.addEventListener("scroll", (event) => {
    const log = event.target;
    if (!log.dataset || log.dataset.mhFollow === undefined || isPaused(log)) return;
    log.dataset.mhFollow = log.scrollHeight - log.scrollTop - log.clientHeight < 40 ? "on" : "off";
  }, true);
  const MOST_STRETCHES = 600; // of lines that came; older ones go
  document.addEventListener("htmx:afterSwap", (event) => {
    const log = event.detail.target;
    if (log && log.id === "mh-log") {
      while (log.childNodes.length > MOST_STRETCHES) log.firstChild.remove();
      document.getElementById("mh-log-empty").hidden = true;
    }
  });

  // Charts of a fragment that is replaced are taken down, or Chart.js would keep them.
  document.addEventListener("htmx:beforeCleanupElement", (event) => {
    const canvas = event.detail.elt || event.target;
    if (canvas.tagName === "CANVAS" && window.Chart) {
      const chart = window.Chart.getChart(canvas);
      if (chart) chart.destroy();
    }
  });
})();
