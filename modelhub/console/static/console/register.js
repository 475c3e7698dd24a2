/* Sending a model: files and folders by drop or choice, their paths, progress, stop. Without this script the page's
   plain form sends the same. */
(() => {
  "use strict";
  const form = document.querySelector("[data-mh-upload]");
  if (!form) return;
  const find = (name) => form.querySelector(`[data-mh-${name}]`);
  const plain = document.getElementById("mh-choose"), folder = find("folder"), drop = find("drop");
  const type = form.elements.type, modelId = form.elements.model_id;
  const maxBytes = Number(form.dataset.mhMaxMb) * 1048576, maxFiles = Number(form.dataset.mhMaxFiles);
  let chosen = []; // {path, file}
  let request = null;
  let busy = false; // from the first submit until what came of it is told
  let isIdTyped = modelId.value !== "";

  const size = (bytes) => {
    const units = ["B", "KiB", "MiB", "GiB"];
    let at = 0;
    while (bytes >= 1024 && at < 3) { bytes /= 1024; at += 1; }
    return `${at < 3 ? Math.round(bytes) : bytes.toFixed(1)} ${units[at]}`;
  };
  const sum = () => chosen.reduce((total, { file }) => total + file.size, 0);
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
  const showPath = () => { find("path").textContent = `${type.value || "type"}/${modelId.value || "model id"}`; };
  const show = () => {
    find("chosen").hidden = !chosen.length;
    find("chosen-sum").textContent = `${chosen.length} file${chosen.length === 1 ? "" : "s"}, ${size(sum())}`;
    find("chosen-list").replaceChildren(...chosen.slice(0, 100).map(({ path, file }) => {
      const row = document.createElement("li"), bytes = document.createElement("span");
      bytes.className = "mh-number mh-subtle";
      bytes.textContent = size(file.size);
      row.append(path, bytes);
      return row;
    }));
    if (chosen.length > 100) find("chosen-list").append(Object.assign(document.createElement("li"), { textContent: `and ${chosen.length - 100} more` }));
    if (!isIdTyped && chosen.length) {
      // The folder's name, or the zip's, is most often the id.
      const first = chosen[0].path;
      const name = first.includes("/") ? first.split("/")[0] : chosen.length === 1 && /\.zip$/i.test(first) ? first.slice(0, -4) : "";
      if (name) { modelId.value = name; showPath(); }
    }
    const problems = {};
    if (sum() > maxBytes) problems.files = [`These have ${size(sum())}, and ${size(maxBytes)} are accepted; copy the model to the store by hand and run discovery.`];
    else if (chosen.length > maxFiles) problems.files = [`These are ${chosen.length} files, and ${maxFiles} are accepted; send a zip of what the model needs.`];
    tell(problems);
    return !problems.files;
  };
  const choose = (files) => { chosen = files; show(); };
  const listed = (list) => [...list].map((file) => ({ path: file.webkitRelativePath || file.name, file }));

  // Before they reach the field, where unfold's own listener counts on a field of its own beside it.
  form.addEventListener("change", (event) => {
    if (event.target !== plain && event.target !== folder) return;
    event.stopPropagation();
    if (event.target === folder) plain.value = "";
    choose(listed(event.target.files));
  }, true);
  const folderButton = find("choose-folder");
  if ("webkitdirectory" in folder) {
    folderButton.hidden = false;
    folderButton.addEventListener("click", () => folder.click());
  }
  find("clear").addEventListener("click", () => { plain.value = ""; folder.value = ""; choose([]); plain.focus(); });
  modelId.addEventListener("input", () => { isIdTyped = modelId.value !== ""; showPath(); });
  type.addEventListener("change", showPath);

  // Dropped folders are walked; readEntries gives a part at a time.
  const walk = async (entry, into) => {
    if (entry.isFile) {
      const file = await new Promise((done, fail) => { entry.file(done, fail); });
      into.push({ path: entry.fullPath.replace(/^\//, ""), file });
    } else if (entry.isDirectory) {
      const reader = entry.createReader();
      for (;;) {
        const part = await new Promise((done, fail) => { reader.readEntries(done, fail); });
        if (!part.length) break;
        for (const inner of part) await walk(inner, into);
        if (into.length > maxFiles) break;
      }
    }
  };
  ["dragenter", "dragover"].forEach((name) => form.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("mh-drop--over");
  }));
  form.addEventListener("dragleave", (event) => { if (!form.contains(event.relatedTarget)) drop.classList.remove("mh-drop--over"); });
  form.addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("mh-drop--over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
    const found = [];
    try {
      if (entries.length) for (const entry of entries) await walk(entry, found);
      else found.push(...listed(event.dataTransfer.files));
    } catch {
      tell({ files: ["What was dropped could not be read; choose the files instead."] });
      return;
    }
    plain.value = "";
    choose(found);
  });

  const sending = (is) => {
    find("sending").hidden = !is;
    find("stop").hidden = !is;
    find("send").disabled = is;
    find("leave").hidden = is;
  };
  const describe = (loaded, total, began) => {
    const seconds = (performance.now() - began) / 1000, rate = loaded / Math.max(seconds, 0.001);
    find("sending-bar").value = total ? loaded / total : 0;
    const left = rate ? Math.ceil((total - loaded) / rate) : 0;
    find("sending-told").textContent = `${size(loaded)} of ${size(total)}, ${size(rate)}/s${seconds > 1 ? `, about ${left} s left` : ""}`;
  };
  const send = () => {
    const body = new FormData();
    for (const [name, value] of new FormData(form)) if (name !== "files" && typeof value === "string") body.append(name, value);
    body.append("paths", JSON.stringify(chosen.map(({ path }) => path)));
    chosen.forEach(({ file }) => body.append("files", file, file.name));
    request = new XMLHttpRequest();
    request.open("POST", form.action || location.href);
    request.setRequestHeader("Accept", "application/json");
    const began = performance.now();
    request.upload.addEventListener("progress", (event) => describe(event.loaded, event.total, began));
    request.upload.addEventListener("load", () => {
      find("sending-what").textContent = "All is sent; it is unpacked and looked at";
      find("sending-bar").removeAttribute("value");
      find("sending-told").textContent = "";
    });
    const end = (errors) => { request = null; busy = false; sending(false); tell(errors); };
    request.addEventListener("load", () => {
      let answer = null;
      try { answer = JSON.parse(request.responseText); } catch { /* an error page */ }
      if (request.status === 201 && answer) { request = null; location.assign(answer.url); return; }
      end((answer && answer.errors) || { "": [`The server answered ${request.status}; nothing was registered. ${request.status === 403 ? "Log in again, or ask for the permission." : "Look at its log."}`] });
    });
    request.addEventListener("error", () => end({ "": ["The connection broke off; nothing was registered. Send it again."] }));
    request.addEventListener("abort", () => end({ "": ["Stopped; nothing was registered."] }));
    find("sending-what").textContent = `Sending ${modelId.value}`;
    find("sending-bar").value = 0;
    find("sending-told").textContent = "";
    sending(true);
    find("stop").focus();
    request.send(body);
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    if (!chosen.length) { tell({ files: ["Choose a zip, or the files of the model's folder."] }); plain.focus(); return; }
    if (!show()) return;
    busy = true;
    tell({});
    // A name that is taken is told before gigabytes are sent.
    const asked = new URLSearchParams({ type: type.value, model_id: modelId.value });
    try {
      const answer = await fetch(`${form.dataset.mhNameUrl}?${asked}`, { headers: { Accept: "application/json" } });
      const { errors } = await answer.json();
      if (Object.keys(errors).length) { busy = false; tell(errors); return; }
    } catch { /* the upload itself tells what is wrong */ }
    send();
  });
  find("stop").addEventListener("click", () => { if (request) request.abort(); });
  window.addEventListener("beforeunload", (event) => { if (request) event.preventDefault(); });
  // Back to this page as it was left, after the upload: it can send again.
  window.addEventListener("pageshow", (event) => { if (event.persisted && !request) { busy = false; sending(false); } });
  showPath();
})();
