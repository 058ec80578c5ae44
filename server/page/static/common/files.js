/** Files between the page and its user's disk. */

/** Hand a file to the user. */
export function offer(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Ask the user for a file. @returns {Promise<File?>} null: none was chosen */
export function pick(accept) {
  const field = document.createElement("input");
  field.type = "file";
  field.accept = accept;
  return new Promise((resolve) => {
    field.addEventListener("change", () => resolve(field.files[0] ?? null));
    field.addEventListener("cancel", () => resolve(null));
    field.click();
  });
}

/** A name for a file, of what people call a thing. */
export function fileName(...parts) {
  const words = parts.map((part) =>
    part
      .trim()
      .replace(/[^\p{L}\p{N}\p{M}]+/gu, "-")
      .replace(/^-+|-+$/g, ""),
  );
  return words.filter(Boolean).join("-").slice(0, 80) || "dialogue";
}

/**
 * Take files that are dragged onto an element; while they are over it, it has the class "target".
 *
 * @param {(file: File) => void} take the first of them
 */
export function takeDropped(element, take) {
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  let depth = 0;
  const show = (by) => {
    depth = by ? Math.max(0, depth + by) : 0;
    element.classList.toggle("target", depth > 0);
  };
  element.addEventListener("dragenter", (event) => hasFiles(event) && show(1));
  element.addEventListener("dragleave", (event) => hasFiles(event) && show(-1));
  element.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  element.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    show(0);
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}
