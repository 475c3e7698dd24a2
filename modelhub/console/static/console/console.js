/* What the console's pages do in the browser: ages that count, dialogs, tabs, charts, menus. No framework of its own:
   htmx fetches, idiomorph changes in place, Chart.js draws. */
(() => {
  "use strict";

  // A fragment that says nothing new is answered 204 and changes nothing; a hidden tab asks nothing (see `live` in the
  // templates: hx-trigger="every 2s [mhVisible()]"), and asks at once when it is seen again.
  window.mhVisible = () => document.visibilityState === "visible";
  document.addEventListener("visibilitychange", () => {
    if (window.mhVisible()) document.querySelectorAll("[data-mh-live]").forEach((live) => window.htmx.trigger(live, "mh:seen"));
  });
  document.addEventListener("htmx:configRequest", (event) => {
    const live = event.target.closest && event.target.closest("[data-mh-live]");
    const shown = live && live.querySelector("[data-mh-digest]");
    if (live === event.target && shown) event.detail.parameters.seen = shown.dataset.mhDigest;
    const token = document.querySelector('meta[name="mh-csrf"]');
    if (token) event.detail.headers["X-CSRFToken"] = token.content;
  });
  // A refusal inside a dialog is shown there; a server that is away is said, not hidden.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const status = event.detail.xhr.status;
    if (status >= 400 && status < 500 && event.detail.target.closest("dialog.mh-dialog")) {
      event.detail.shouldSwap = true;
      event.detail.isError = false;
    }
  });
  const silent = (is) => document.querySelectorAll("[data-mh-silent]").forEach((banner) => { banner.hidden = !is; });
  ["htmx:sendError", "htmx:timeout"].forEach((name) => document.addEventListener(name, () => silent(true)));
  document.addEventListener("htmx:responseError", (event) => { if (event.detail.xhr.status >= 500) silent(true); });
  document.addEventListener("htmx:afterOnLoad", () => silent(false));

  // Ages: <time data-mh-age datetime="…">; the server sends moments, so a page that stands still does not lie.
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const duration = (seconds) => {
    const whole = Math.max(0, Math.floor(seconds));
    const found = units.findIndex(([size]) => whole >= size);
    if (found < 0) return "0 s";
    const [size, name] = units[found];
    const rest = found < 2 ? Math.floor((whole % size) / units[found + 1][0]) : 0;
    return rest ? `${Math.floor(whole / size)} ${name} ${rest} ${units[found + 1][1]}` : `${Math.floor(whole / size)} ${name}`;
  };
  const began = Date.now();
  const skew = () => { // ms that the server's clock is ahead of ours
    const now = document.querySelector('meta[name="mh-now"]');
    return now ? Date.parse(now.content) - began : 0;
  };
  const age = (element) => {
    const seconds = (Date.now() + skew() - Date.parse(element.dateTime)) / 1000;
    const kind = element.dataset.mhAge;
    const text = kind === "until" ? (seconds < 0 ? `in ${duration(-seconds)}` : "now") : kind === "for" ? duration(seconds) : `${duration(seconds)} ago`;
    if (element.textContent !== text) element.textContent = text;
  };
  const ages = () => document.querySelectorAll("time[data-mh-age]").forEach(age);
  setInterval(() => { if (window.mhVisible()) ages(); }, 1000);

  // Dialogs: a button with data-mh-dialog="URL" opens what the URL answers with in the page's <dialog>.
  let opener = null;
  const dialog = () => document.getElementById("mh-dialog");
  const openDialog = (url, button) => {
    if (!button || !button.closest("#mh-dialog")) opener = button; // a dialog that leads to the next one keeps who opened it
    window.htmx.ajax("GET", url, { target: "#mh-dialog", swap: "innerHTML" }).then(() => {
      if (dialog().childElementCount && !dialog().open) dialog().showModal();
    });
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-mh-dialog]");
    if (button && !event.metaKey && !event.ctrlKey) {
      event.preventDefault();
      const menu = button.closest("[popover]");
      if (menu) menu.hidePopover();
      openDialog(button.dataset.mhDialog, menu ? document.querySelector(`[popovertarget="${menu.id}"]`) : button);
    } else if (event.target.closest("[data-mh-close]")) {
      event.preventDefault();
      dialog().close();
    } else if (event.target === dialog()) dialog().close(); // the backdrop
    const copy = event.target.closest("[data-mh-copy]");
    if (copy) {
      const text = document.getElementById(copy.dataset.mhCopy).textContent;
      const told = copy.querySelector("[data-mh-told]") || copy;
      const before = told.textContent;
      const done = () => { told.textContent = "Copied"; setTimeout(() => { told.textContent = before; }, 1500); };
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(done);
      else { // a page over plain HTTP from another machine has no clipboard of its own
        const area = Object.assign(document.createElement("textarea"), { value: text });
        (copy.closest("dialog") || document.body).append(area);
        area.select();
        if (document.execCommand("copy")) done();
        area.remove();
        copy.focus();
      }
    }
  });
  window.mhDialog = openDialog;

  // What has the focus may go when a fragment changes (Load becomes Unload): it then stays in the content, not nowhere.
  let focused = null;
  document.addEventListener("focusin", (event) => { focused = event.target; });
  document.addEventListener("pointerdown", () => { focused = null; });
  document.addEventListener("htmx:afterSettle", () => {
    if (focused && !focused.isConnected && document.activeElement === document.body) document.getElementById("content").focus({ preventScroll: true });
  });

  // Tabs: role=tablist with arrow keys (WAI-ARIA), the panel named in the address.
  const selectTab = (tab, focus) => {
    const list = tab.closest('[role="tablist"]');
    list.querySelectorAll('[role="tab"]').forEach((other) => {
      const on = other === tab;
      other.setAttribute("aria-selected", String(on));
      other.tabIndex = on ? 0 : -1;
      const panel = document.getElementById(other.getAttribute("aria-controls"));
      if (panel) { panel.hidden = !on; if (on) window.htmx.trigger(panel, "mh:shown"); }
    });
    if (focus) tab.focus();
    if (list.dataset.mhHash !== undefined) history.replaceState(null, "", `#${tab.dataset.mhTab}`);
  };
  document.addEventListener("click", (event) => {
    const tab = event.target.closest('[role="tab"]');
    if (tab && tab.closest("[data-mh-tabs]")) selectTab(tab, false);
    const open = event.target.closest("[data-mh-open-tab]");
    if (open) {
      const wanted = document.querySelector(`[data-mh-tab="${open.dataset.mhOpenTab}"]`);
      if (wanted) { event.preventDefault(); selectTab(wanted, true); }
    }
  });
  document.addEventListener("keydown", (event) => {
    const tab = event.target.closest && event.target.closest('[data-mh-tabs] [role="tab"]');
    if (!tab) return;
    const tabs = [...tab.closest('[role="tablist"]').querySelectorAll('[role="tab"]')];
    const at = tabs.indexOf(tab);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    selectTab(tabs[(to + tabs.length) % tabs.length], true);
  });
  const firstTab = () => {
    document.querySelectorAll("[data-mh-tabs]").forEach((list) => {
      const named = list.querySelector(`[data-mh-tab="${CSS.escape(location.hash.slice(1))}"]`);
      selectTab(named || list.querySelector('[role="tab"]'), false);
    });
  };

  // Charts: <canvas data-mh-chart="ID of a JSON script">: {labels (ISO), series: [{name, values, dashed}], unit, stacked}.
  const drawn = new WeakMap(); // canvas -> what was drawn, and of which text: morphing takes attributes away
  const styleOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const draw = (canvas) => {
    const source = document.getElementById(canvas.dataset.mhChart);
    const key = source && source.textContent + document.documentElement.className;
    if (!source || (drawn.has(canvas) && drawn.get(canvas).key === key)) return;
    const data = JSON.parse(source.textContent);
    const long = data.labels.length > 1 && Date.parse(data.labels.at(-1)) - Date.parse(data.labels[0]) > 36 * 3600e3;
    const name = (iso) => new Date(iso).toLocaleString([], long ? { weekday: "short", hour: "2-digit", minute: "2-digit" } : { hour: "2-digit", minute: "2-digit" });
    const grid = styleOf("--mh-line"), text = styleOf("--mh-subtle");
    if (drawn.has(canvas)) drawn.get(canvas).chart.destroy();
    drawn.set(canvas, { key, chart: new window.Chart(canvas, {
      type: "line",
      data: {
        labels: data.labels.map(name),
        datasets: data.series.map((series, at) => ({
          label: series.name, data: series.values, borderColor: styleOf(`--mh-series-${(series.colour || at + 1)}`),
          backgroundColor: styleOf(`--mh-series-${(series.colour || at + 1)}`) + "26", borderWidth: 1.5, pointHitRadius: 8,
          pointRadius: (point) => [-1, 1].every((step) => (series.values[point.dataIndex + step] ?? null) === null) ? 2 : 0, // alone, it would not be seen
          borderDash: series.dashed ? [5, 4] : [], fill: Boolean(data.stacked), spanGaps: false, tension: 0,
        })),
      },
      options: {
        animation: false, responsive: true, maintainAspectRatio: false, interaction: { mode: "index", intersect: false },
        plugins: {
          legend: { display: data.series.length > 1, labels: { color: text, boxWidth: 12, boxHeight: 2 } },
          tooltip: { callbacks: { label: (item) => `${item.dataset.label}: ${item.parsed.y === null ? "nothing measured" : `${Number(item.parsed.y.toPrecision(4)).toLocaleString()} ${data.unit}`}` } },
        },
        scales: {
          x: { grid: { display: false }, ticks: { color: text, maxTicksLimit: 7, maxRotation: 0 }, border: { color: grid } },
          y: { beginAtZero: true, stacked: Boolean(data.stacked), grid: { color: grid }, border: { display: false }, ticks: { color: text, maxTicksLimit: 5, callback: (value) => `${value.toLocaleString()} ${data.unit}` } },
        },
      },
    }) });
  };
  const charts = () => document.querySelectorAll("canvas[data-mh-chart]").forEach((canvas) => { if (canvas.offsetParent !== null) draw(canvas); });
  document.addEventListener("mh:shown", () => requestAnimationFrame(charts));

  // A log that follows its end unless somebody scrolled up or paused it.
  const follow = () => document.querySelectorAll("[data-mh-follow]").forEach((log) => {
    if (log.dataset.mhFollow === "on") log.scrollTop = log.scrollHeight;
  });

  const fresh = () => { ages(); charts(); follow(); };
  document.addEventListener("htmx:afterSwap", fresh);
  document.addEventListener("htmx:afterSettle", charts);
  document.addEventListener("DOMContentLoaded", () => {
    firstTab();
    fresh();
    new MutationObserver(charts).observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
    if (dialog()) dialog().addEventListener("close", () => {
      dialog().replaceChildren();
      (opener && opener.isConnected ? opener : document.getElementById("content")).focus();
    });
  });
  window.addEventListener("hashchange", firstTab);
})();
