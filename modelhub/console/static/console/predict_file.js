/* Having a file predicted: dropped or chosen, sent with its progress. Without this script the plain form sends it. */
(() => {
  "use strict";
  const form = document.querySelector("[data-mh-predict-file]");
  if (!form) return;
  const sending = mhSending(form, { received: "All is sent; its first rows are looked at", nothing: "there is no job" });
  const field = form.elements.file, drop = form.querySelector("[data-mh-drop]");
  const maxBytes = Number(form.dataset.mhMaxMb) * 1048576;

  const fits = () => {
    const [file] = field.files;
    const told = !file ? "Choose a file." : file.size > maxBytes
      ? `The file has ${mhSize(file.size)}, and ${mhSize(maxBytes)} are accepted; raise JOB_MAX_MB, or predict it with \`manage.py predict --file\`.`
      : "";
    sending.tell(told ? { file: [told] } : {});
    return !told;
  };
  // Before it reaches the field, where unfold's own listener counts on a field of its own beside it.
  form.addEventListener("change", (event) => {
    if (event.target !== field) return;
    event.stopPropagation();
    if (field.files.length) fits();
  }, true);
  ["dragenter", "dragover"].forEach((name) => form.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("mh-drop--over");
  }));
  form.addEventListener("dragleave", (event) => { if (!form.contains(event.relatedTarget)) drop.classList.remove("mh-drop--over"); });
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("mh-drop--over");
    if (event.dataTransfer.files.length > 1) { sending.tell({ file: ["A job takes one file; drop one."] }); return; }
    if (event.dataTransfer.files.length) { field.files = event.dataTransfer.files; fits(); }
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (sending.isBusy() || !fits()) return;
    const asked = new URLSearchParams({ file: field.files[0].name });
    for (const [name, value] of new FormData(form)) if (typeof value === "string" && name !== "csrfmiddlewaretoken") asked.append(name, value);
    sending.begin(`${form.dataset.mhCheckUrl}?${asked}`, () => new FormData(form), field.files[0].name);
  });
})();
