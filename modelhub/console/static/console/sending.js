/* A form whose files are sent by script: what is wrong at its fields, how far it is, stop. Loaded before what uses it. */
"use strict";
const mhSize = (bytes) => {
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  while (bytes >= 1024 && at < 3) { bytes /= 1024; at += 1; }
  return `${at < 3 ? Math.round(bytes) : bytes.toFixed(1)} ${units[at]}`;
};

/* words: {received: while the server looks at it, nothing: what did not happen when it failed}. The form has places for
   errors ([data-mh-error-for=field], "" above all fields), and [data-mh-sending], -what, -bar, -told, stop, send, leave. */
const mhSending = (form, words) => {
  const find = (name) => form.querySelector(`[data-mh-${name}]`);
  const AWAY = `Your session ended; ${words.nothing}. Load this page again, and log in.`;
  let request = null;
  let busy = false; // from the first submit until what came of it is told

  const tell = (errors) => {
    form.querySelectorAll("[data-mh-error-for]").forEach((place) => {
      const told = errors[place.dataset.mhErrorFor];
      place.textContent = told ? told.join(" ") : "";
      if (place.dataset.mhErrorFor === "") place.hidden = !told;
      const field = form.elements[place.dataset.mhErrorFor];
      if (field && field.setAttribute) field.setAttribute("aria-invalid", String(Boolean(told)));
      if (told && place.closest("details")) place.closest("details").open = true;
    });
    const names = Object.keys(errors);
    if (names.length) {
      const field = form.elements[names[0]];
      const first = field && field.focus ? field : form.querySelector(`[data-mh-error-for="${CSS.escape(names[0])}"]`);
      if (first) { first.scrollIntoView({ block: "center" }); if (first.focus) first.focus({ preventScroll: true }); }
    }
  };
  const show = (is) => {
    find("sending").hidden = !is;
    find("stop").hidden = !is;
    find("send").disabled = is;
    find("leave").hidden = is;
  };
  const describe = (loaded, total, began) => {
    const seconds = (performance.now() - began) / 1000, rate = loaded / Math.max(seconds, 0.001);
    find("sending-bar").value = total ? loaded / total : 0;
    const left = rate ? Math.ceil((total - loaded) / rate) : 0;
    find("sending-told").textContent = `${mhSize(loaded)} of ${mhSize(total)}, ${mhSize(rate)}/s${seconds > 1 ? `, about ${left} s left` : ""}`;
  };
  const send = (body, what) => {
    request = new XMLHttpRequest();
    request.open("POST", form.action || location.href);
    request.setRequestHeader("Accept", "application/json");
    const began = performance.now();
    request.upload.addEventListener("progress", (event) => describe(event.loaded, event.total, began));
    request.upload.addEventListener("load", () => {
      find("sending-what").textContent = words.received;
      find("sending-bar").removeAttribute("value");
      find("sending-told").textContent = "";
    });
    const end = (errors) => { request = null; busy = false; show(false); tell(errors); };
    request.addEventListener("load", () => {
      let answer = null;
      try { answer = JSON.parse(request.responseText); } catch { /* an error page */ }
      if (request.status === 201 && answer) { request = null; location.assign(answer.url); return; }
      if (request.responseURL.includes("/login/")) { end({ "": [AWAY] }); return; }
      end((answer && answer.errors) || { "": [`The server answered ${request.status}; ${words.nothing}. ${request.status === 403 ? "Log in again, or ask for the permission." : "Look at its log."}`] });
    });
    request.addEventListener("error", () => end({ "": [`The connection broke off; ${words.nothing}. Send it again.`] }));
    request.addEventListener("abort", () => end({ "": [`Stopped; ${words.nothing}.`] }));
    find("sending-what").textContent = `Sending ${what}`;
    find("sending-bar").value = 0;
    find("sending-told").textContent = "";
    show(true);
    find("stop").focus();
    request.send(body);
  };

  /* Asks `url` first, which answers {errors}, then sends `body()`: what is wrong is told before gigabytes are sent. */
  const begin = async (url, body, what) => {
    if (busy) return;
    busy = true;
    tell({});
    try {
      const answer = await fetch(url, { headers: { Accept: "application/json" } });
      if (answer.redirected) { busy = false; tell({ "": [AWAY] }); return; }
      const { errors } = await answer.json();
      if (Object.keys(errors).length) { busy = false; tell(errors); return; }
    } catch { /* sending itself tells what is wrong */ }
    send(body(), what);
  };
  find("stop").addEventListener("click", () => { if (request) request.abort(); });
  window.addEventListener("beforeunload", (event) => { if (request) event.preventDefault(); });
  // Back to this page as it was left, after the upload: it can send again.
  window.addEventListener("pageshow", (event) => { if (event.persisted && !request) { busy = false; show(false); } });
  return { tell, begin, isBusy: () => busy };
};
