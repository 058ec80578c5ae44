/** Files between the page and its user's disk. */

const LONGEST_PART = 40; // characters of a file's name

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

/**
 * What a text file holds.
 *
 * @param {string[]} others encodings that are tried beside UTF-8 and UTF-16, which has a mark in front
 * @returns {Promise<string?>} null: it is in none of them
 */
export async function textOf(file, others = []) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const mark = bytes.length > 1 ? bytes[0] * 256 + bytes[1] : 0;
  const known = { 0xfffe: ["utf-16le"], 0xfeff: ["utf-16be"] }[mark] ?? ["utf-8", ...others];
  for (const encoding of known) {
    try {
      return new TextDecoder(encoding, { fatal: true }).decode(bytes);
    } catch {
      // Not in this one.
    }
  }
  return null;
}

/** A name for a file, of what people call a thing; of a long one, each part keeps its beginning. */
export function fileName(...parts) {
  const words = parts.map((part) =>
    [...part.trim().replace(/[^\p{L}\p{N}\p{M}]+/gu, "-")]
      .slice(0, LONGEST_PART)
      .join("")
      .replace(/^-+|-+$/g, ""),
  );
  return words.filter(Boolean).join("-") || "dialogue";
}

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");

/** A file that is dropped where nothing takes it is not opened by the browser, in the place of the page. */
export function refuseDropped() {
  for (const type of ["dragover", "drop"]) {
    addEventListener(type, (event) => {
      if (event.defaultPrevented || !hasFiles(event) || event.target.matches?.("[type=file]")) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "none";
    });
  }
}

/**
 * Take files that are dragged onto an element; while they are over it, it has the class "target".
 *
 * @param {(file: File) => void} take the first of them
 */
export function takeDropped(element, take) {
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
