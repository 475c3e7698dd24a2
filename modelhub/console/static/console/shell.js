/* The admin's shell in the browser: the sidebar, the theme, menus, dialogs of a page's own, Ctrl+K. Keyboard alone
   reaches all of it: real buttons open, Escape closes, the focus goes back to where it came from. */
(() => {
  "use strict";

  const root = document.documentElement;
  const keep = (name, value) => { try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* private mode */ } };
  const kept = (name) => { try { return JSON.parse(localStorage.getItem(name)); } catch { return null; } };
  const each = (selector, act, within = document) => within.querySelectorAll(selector).forEach(act);

  // Theme: light, dark or the system's; set before the first paint by the page's head.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const applyTheme = () => {
    const chosen = kept("adminTheme") || "auto";
    const isDark = chosen === "dark" || (chosen === "auto" && system.matches);
    root.classList.toggle("dark", isDark);
    root.classList.toggle("light", !isDark);
    each("[data-mh-theme]", (button) => button.setAttribute("aria-pressed", String(button.dataset.mhTheme === chosen)));
  };
  system.addEventListener("change", applyTheme);

  // Sidebar: beside the page on wide screens, where it can be put away; over the page on narrow ones, which rests then.
  const wide = matchMedia("(min-width: 80rem)");
  const nav = () => document.getElementById("mh-nav");
  let navOpener = null;
  const isNavShown = () => (wide.matches ? !root.classList.contains("mh-nav-closed") : root.classList.contains("mh-nav-open"));
  const tellNav = () => each("[data-mh-nav-toggle]", (button) => button.setAttribute("aria-expanded", String(isNavShown())));
  const drawer = (open) => {
    root.classList.toggle("mh-nav-open", open);
    each(".mh-nav__backdrop", (backdrop) => { backdrop.hidden = !open; });
    const main = document.getElementById("main");
    if (main) main.inert = open;
    if (open) nav().querySelector(".mh-nav__close").focus();
    else if (navOpener) { navOpener.focus(); navOpener = null; }
    tellNav();
  };
  const toggleNav = (button) => {
    if (wide.matches) {
      const isClosed = root.classList.toggle("mh-nav-closed");
      keep("sidebarDesktopOpen", isClosed ? 0 : 1);
      tellNav();
    } else {
      navOpener = button;
      drawer(!isNavShown());
    }
  };
  wide.addEventListener("change", () => { navOpener = null; drawer(false); });

  // Menus: <button popovertarget="ID"> and <… popover id="ID">. The browser opens, closes on Escape and gives the focus
  // back; here they get their place, and arrow keys.
  const openerOf = (menu) => document.querySelector(`[popovertarget="${CSS.escape(menu.id)}"]`);
  const place = (menu) => {
    const opener = openerOf(menu);
    if (!opener || menu.dataset.mhPlaced === "own") return;
    const at = opener.getBoundingClientRect();
    const isLow = at.bottom > innerHeight * 0.6, isRight = at.left + at.width / 2 > innerWidth / 2;
    Object.assign(menu.style, {
      position: "fixed", margin: "0",
      top: isLow ? "auto" : `${at.bottom + 4}px`, bottom: isLow ? `${innerHeight - at.top + 4}px` : "auto",
      left: isRight ? "auto" : `${Math.max(8, at.left)}px`, right: isRight ? `${Math.max(8, innerWidth - at.right)}px` : "auto",
      maxHeight: `${(isLow ? at.top : innerHeight - at.bottom) - 12}px`, maxWidth: "calc(100vw - 1rem)", overflowY: "auto",
    });
  };
  const placeAll = () => each("[popover]:popover-open", place);
  document.addEventListener("beforetoggle", (event) => {
    if (event.target.matches("[popover]") && event.newState === "open") place(event.target);
  }, true);
  document.addEventListener("toggle", (event) => {
    if (!event.target.matches("[popover]")) return;
    const opener = openerOf(event.target);
    if (opener) opener.setAttribute("aria-expanded", String(event.newState === "open"));
  }, true);
  addEventListener("resize", placeAll);
  addEventListener("scroll", placeAll, true);
  document.addEventListener("htmx:afterSettle", placeAll);
  const inMenu = (menu) => [...menu.querySelectorAll("a[href], button:not(:disabled), input, select")].filter((item) => item.offsetParent !== null);
  document.addEventListener("keydown", (event) => {
    if (!["ArrowDown", "ArrowUp", "Home", "End"].includes(event.key) || !event.target.closest) return;
    const opener = event.target.closest("[popovertarget]");
    if (opener && event.key === "ArrowDown") {
      const menu = document.getElementById(opener.getAttribute("popovertarget"));
      if (!menu) return;
      event.preventDefault();
      if (!menu.matches(":popover-open")) menu.showPopover();
      const [first] = inMenu(menu);
      if (first) first.focus();
      return;
    }
    const menu = event.target.closest("[popover]:popover-open");
    if (!menu || event.target.matches("input, select, textarea")) return;
    const items = inMenu(menu), at = items.indexOf(event.target);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    event.preventDefault();
    if (items.length) items[(to + items.length) % items.length].focus();
  });

  // Ctrl+K: one field, the list under it; the focus stays in the field, the chosen line is told by its id.
  const palette = () => document.getElementById("mh-palette");
  const field = () => document.getElementById("mh-palette-input");
  const list = () => document.getElementById("mh-palette-list");
  const lines = () => [...list().querySelectorAll("a[role=option]")];
  let asked = null, timer = 0;
  const choose = (line) => {
    lines().forEach((other) => other.setAttribute("aria-selected", String(other === line)));
    if (line) { field().setAttribute("aria-activedescendant", line.id); line.scrollIntoView({ block: "nearest" }); }
    else field().removeAttribute("aria-activedescendant");
  };
  const chosen = () => list().querySelector('a[aria-selected="true"]');
  const ask = async () => {
    if (asked) asked.abort();
    const request = asked = new AbortController();
    const query = field().value;
    try {
      const answer = await fetch(`${field().dataset.mhSearch}?q=${encodeURIComponent(query)}`, { signal: request.signal, headers: { "HX-Request": "true" } });
      if (answer.headers.get("HX-Refresh")) { location.reload(); return; }
      if (!answer.ok) throw new Error(String(answer.status));
      list().innerHTML = await answer.text();
      list().scrollTop = 0;
    } catch (error) {
      if (request.signal.aborted) return;
      list().innerHTML = '<div class="mh-palette__none" role="option" aria-disabled="true" aria-selected="false">The web server does not answer.</div>';
    }
    choose(lines()[0]);
    const count = lines().length;
    palette().querySelector("[data-mh-palette-status]").textContent = query.trim() ? `${count} found` : "";
  };
  const openPalette = () => {
    if (!palette() || palette().open) return;
    // The sidebar rests below the palette; a dialog that is open keeps what was typed in it.
    if (!wide.matches && isNavShown()) { const back = navOpener; navOpener = null; drawer(false); if (back) back.focus(); }
    each("[popover]:popover-open", (menu) => menu.hidePopover());
    field().value = "";
    palette().showModal();
    field().focus();
    ask();
  };
  const take = (line) => {
    if (line.dataset.mhFill) {
      field().value = line.dataset.mhFill;
      field().focus();
      ask();
      return;
    }
    palette().close(); // the focus goes back to where it was; a dialog that opens gives it back there too
    if (line.dataset.mhDialog && document.getElementById("mh-dialog") && window.mhDialog) window.mhDialog(line.dataset.mhDialog, document.activeElement);
    else location.assign(line.href);
  };
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "k" && palette()) {
      event.preventDefault();
      if (palette().open) palette().close(); else openPalette();
      return;
    }
    if (event.key === "Escape" && !wide.matches && isNavShown() && !document.querySelector("dialog[open], [popover]:popover-open")) {
      event.preventDefault();
      drawer(false);
      return;
    }
    if (event.target !== field()) return;
    const all = lines(), at = all.indexOf(chosen());
    if (event.key === "Enter") {
      event.preventDefault();
      const line = chosen();
      if (!line) return;
      if ((event.ctrlKey || event.metaKey) && !line.dataset.mhFill) window.open(line.href, "_blank", "noopener");
      else take(line);
      return;
    }
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: Math.min(at + 8, all.length - 1), PageUp: Math.max(at - 8, 0) }[event.key];
    if (to === undefined || !all.length) return;
    event.preventDefault();
    choose(all[(to + all.length) % all.length]);
  });
  document.addEventListener("input", (event) => {
    if (event.target !== field()) return;
    clearTimeout(timer);
    timer = setTimeout(ask, 30);
  });
  document.addEventListener("pointermove", (event) => {
    const line = event.target.closest && event.target.closest("#mh-palette a[role=option]");
    if (line && line !== chosen()) choose(line);
  });

  // Before the page's other listeners: a line of the palette is taken here, not by what opens dialogs elsewhere.
  document.addEventListener("click", (event) => {
    const line = event.target.closest("#mh-palette a[role=option]");
    if (!line || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    take(line);
  }, true);

  document.addEventListener("click", (event) => {
    const on = (selector) => event.target.closest(selector);
    const theme = on("[data-mh-theme]"), toggle = on("[data-mh-nav-toggle]"), opens = on("[data-mh-open]");
    if (theme) { keep("adminTheme", theme.dataset.mhTheme); applyTheme(); }
    if (toggle) toggleNav(toggle);
    if (on("[data-mh-nav-close]")) drawer(false);
    if (on("[data-mh-palette]")) openPalette();
    if (opens) document.getElementById(opens.dataset.mhOpen).showModal();
    const own = event.target.closest("dialog.mh-dialog:not(#mh-dialog)");
    if (own && (event.target === own || on("[data-mh-close]"))) own.close();
  });

  // Groups of the sidebar stay as they were left.
  document.addEventListener("toggle", (event) => {
    if (event.target.dataset && event.target.dataset.mhKept) keep(event.target.dataset.mhKept, event.target.open);
  }, true);

  // What a library wrote without a name: icons are pictures of words that are there already, so they are not read out;
  // calendars, filters and choosers get the name of their field.
  const nameAll = (within) => {
    each(".material-symbols-outlined:not([aria-hidden])", (icon) => {
      if (!icon.matches("a, button, [role=button], [tabindex], [aria-label]")) icon.setAttribute("aria-hidden", "true");
    }, within);
    each("span.date-icon, span.clock-icon", (icon) => {
      const link = icon.closest("a");
      if (link && !link.ariaLabel) { link.setAttribute("role", "button"); link.ariaLabel = icon.title || icon.textContent; }
    }, within);
    each("span.help-tooltip[aria-label]:not([role])", (tip) => tip.setAttribute("role", "img"), within);
    each(".select2-container", (container) => {
      const select = container.previousElementSibling;
      const label = select && select.labels && select.labels[0];
      if (!label) return;
      each(".select2-selection:not([aria-label]), .select2-selection__rendered:not([aria-label]), .select2-search__field:not([aria-label])", (part) => {
        part.setAttribute("aria-label", label.textContent.trim().replace(/[*:]+$/, ""));
      }, container);
    }, within);
  };

  document.addEventListener("DOMContentLoaded", () => {
    applyTheme();
    tellNav();
    each("details[data-mh-kept]", (group) => {
      const open = kept(group.dataset.mhKept);
      if (open !== null && !group.querySelector("[aria-current]")) group.open = open;
    });
    const here = nav() && nav().querySelector('[aria-current]');
    if (here) here.scrollIntoView({ block: "nearest" });
    nameAll(document);
    new MutationObserver((changes) => {
      changes.forEach((change) => change.addedNodes.forEach((node) => { if (node.nodeType === 1 && node.parentElement) nameAll(node.parentElement); }));
    }).observe(document.body, { childList: true, subtree: true });
  });
})();
