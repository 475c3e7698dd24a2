/* The browsable API: sends what its forms say by any method, and shows the answer in place. Without this script the
   forms that POST work as plain forms. */
(() => {
  "use strict";
  const api = () => document.getElementById("mh-api");

  const show = (html, url, isRefused) => {
    const answer = new DOMParser().parseFromString(html, "text/html").getElementById("mh-api");
    if (!answer) return false;
    // What was refused stays in its form, to be corrected.
    if (isRefused) answer.querySelectorAll("[data-mh-sends]").forEach((form) => {
      const before = api().querySelector(`[data-mh-sends="${form.dataset.mhSends}"]`);
      if (before) form.replaceWith(before);
    });
    api().replaceWith(answer);
    history.replaceState(null, "", url);
    if (!isRefused) window.dispatchEvent(new Event("hashchange")); // the tabs of the new part
    const heading = document.getElementById("mh-response");
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    api().scrollIntoView({ block: "start" });
    return true;
  };

  // A PATCH says what was changed and nothing more, with JSON's types: what is absent stays.
  const changes = (form) => {
    const found = {};
    for (const field of form.elements) {
      if (!field.name || field.name === "csrfmiddlewaretoken") continue;
      if (field.type === "checkbox") {
        if (field.checked !== field.defaultChecked) found[field.name] = field.checked;
      } else if (field.tagName === "SELECT") {
        const before = [...field.options].find((option) => option.defaultSelected);
        if (field.value !== (before ? before.value : field.options[0].value)) found[field.name] = field.value || null;
      } else if (field.value !== field.defaultValue) {
        found[field.name] = field.value === "" ? null : field.type === "number" ? Number(field.value) : field.value;
      }
    }
    return found;
  };

  // A PUT says all: an unchecked box is false, which a form's own encoding cannot tell from one that is absent.
  const values = (form) => {
    const found = {};
    for (const field of form.elements) {
      if (!field.name || field.name === "csrfmiddlewaretoken") continue;
      if (field.type === "checkbox") found[field.name] = field.checked;
      else if (field.value !== "") found[field.name] = field.type === "number" ? Number(field.value) : field.value;
    }
    return found;
  };

  const send = async (form) => {
    const method = form.dataset.mhMethod, told = form.querySelector("[data-mh-told-here]");
    const headers = { Accept: "text/html", "X-CSRFToken": api().dataset.mhCsrf };
    let body;
    if (told) told.textContent = "";
    if (form.dataset.mhRaw !== undefined) {
      body = form.elements._content.value;
      const type = form.elements._content_type.value;
      // The boundary is the first line of a multipart body, whose lines end with CR LF.
      const boundary = type === "multipart/form-data" && /^--([^\r\n]{1,70})\s*$/m.exec(body);
      headers["Content-Type"] = boundary ? `${type}; boundary=${boundary[1]}` : type;
      if (boundary) body = body.replace(/\r?\n/g, "\r\n");
    } else if (method === "PATCH") {
      const changed = changes(form);
      if (!Object.keys(changed).length) { told.textContent = "Nothing was changed in the form."; return; }
      body = JSON.stringify(changed);
      headers["Content-Type"] = "application/json";
    } else if (method === "PUT") {
      body = JSON.stringify(values(form));
      headers["Content-Type"] = "application/json";
    } else if (method === "POST") {
      body = new FormData(form);
    }
    const button = form.querySelector('[type="submit"]');
    button.disabled = true;
    button.classList.add("htmx-request");
    try {
      const answer = await fetch(form.action, { method, headers, body });
      const text = await answer.text();
      if (!show(text, form.action, !answer.ok)) {
        if (answer.redirected) location.assign(answer.url);
        else if (told) told.textContent = `${answer.status}: ${text.slice(0, 500)}`;
      }
    } catch {
      if (told) told.textContent = "The server was not reached; nothing is known of what became of it.";
    } finally {
      button.disabled = false;
      button.classList.remove("htmx-request");
    }
  };

  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-mh-method]");
    if (!form || !api() || !api().contains(form)) return;
    event.preventDefault();
    const dialog = form.closest("dialog");
    if (dialog) dialog.close();
    send(form);
  });
  document.addEventListener("click", (event) => {
    const ask = event.target.closest("[data-mh-ask]");
    if (ask) document.getElementById(ask.dataset.mhAsk).showModal();
    const close = event.target.closest("[data-mh-ask-close]");
    if (close) close.closest("dialog").close();
  });
})();
