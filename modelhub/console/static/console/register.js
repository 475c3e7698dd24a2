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
  const sending = mhSending(form, { received: "All is sent; it is unpacked and looked at", nothing: "nothing was registered" });
  let chosen = []; // {path, file}
  let isIdTyped = modelId.value !== "";

  const sum = () => chosen.reduce((total, { file }) => total + file.size, 0);
  const showPath = () => { find("path").textContent = `${type.value || "type"}/${modelId.value || "model id"}`; };
  const show = () => {
    find("chosen").hidden = !chosen.length;
    find("chosen-sum").textContent = `${chosen.length} file${chosen.length === 1 ? "" : "s"}, ${mhSize(sum())}`;
    find("chosen-list").replaceChildren(...chosen.slice(0, 100).map(({ path, file }) => {
      const row = document.createElement("li"), bytes = document.createElement("span");
      bytes.className = "mh-number mh-subtle";
      bytes.textContent = mhSize(file.size);
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
    if (sum() > maxBytes) problems.files = [`These have ${mhSize(sum())}, and ${mhSize(maxBytes)} are accepted; copy the model to the store by hand and run discovery.`];
    else if (chosen.length > maxFiles) problems.files = [`These are ${chosen.length} files, and ${maxFiles} are accepted; send a zip of what the model needs.`];
    sending.tell(problems);
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
      sending.tell({ files: ["What was dropped could not be read; choose the files instead."] });
      return;
    }
    plain.value = "";
    choose(found);
  });

  const body = () => {
    const data = new FormData();
    for (const [name, value] of new FormData(form)) if (name !== "files" && typeof value === "string") data.append(name, value);
    data.append("paths", JSON.stringify(chosen.map(({ path }) => path)));
    chosen.forEach(({ file }) => data.append("files", file, file.name));
    return data;
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (sending.isBusy()) return;
    if (!chosen.length) { sending.tell({ files: ["Choose a zip, or the files of the model's folder."] }); plain.focus(); return; }
    if (!show()) return;
    const asked = new URLSearchParams({ type: type.value, model_id: modelId.value });
    sending.begin(`${form.dataset.mhNameUrl}?${asked}`, body, modelId.value);
  });
  showPath();
})();
