/** What survives a reload beside the takes: the project, and how its user likes the page. It stays in this browser. */

const NAME = "moss-ttsd";
const PROJECT = `${NAME}-project`; // of this tab, which another one does not overwrite

/** @returns {Record<string, any>} what was saved; anything may be missing or of another shape. */
export function load() {
  return read(() => localStorage, NAME) ?? {};
}

/** Replace some of what is saved. */
export function save(changes) {
  write(() => localStorage, NAME, { ...load(), ...changes });
}

/** The project that this tab had; in a new tab, the one that was changed last in any. @returns {object?} */
export function loadProject() {
  return read(() => sessionStorage, PROJECT) ?? load().project;
}

export function saveProject(project) {
  write(() => sessionStorage, PROJECT, project);
  save({ project });
}

function read(storage, name) {
  try {
    const saved = JSON.parse(storage().getItem(name) ?? "null");
    return saved !== null && typeof saved === "object" ? saved : null;
  } catch {
    return null; // no storage, or somebody else's words in it
  }
}

function write(storage, name, value) {
  try {
    storage().setItem(name, JSON.stringify(value));
  } catch {
    // Storage is full or forbidden: the page works on, and forgets.
  }
}
