/** What survives a reload beside the takes: the project, and how its user likes the page. It stays in this browser. */

const NAME = "moss-ttsd";

/** @returns {Record<string, any>} what was saved; anything may be missing or of another shape. */
export function load() {
  try {
    const saved = JSON.parse(localStorage.getItem(NAME) ?? "{}");
    return saved !== null && typeof saved === "object" ? saved : {};
  } catch {
    return {}; // no storage, or somebody else's words in it
  }
}

/** Replace some of what is saved. */
export function save(changes) {
  try {
    localStorage.setItem(NAME, JSON.stringify({ ...load(), ...changes }));
  } catch {
    // Storage is full or forbidden: the page works on, and forgets.
  }
}
