/** What the page says: how things go, what is wrong as long as it is, and what can still be taken back. */

import { find, made, showText } from "./dom.js";
import { onLanguage, t } from "./i18n.js";

const UNDO_SECONDS = 12;
let cause = null; // of the problem that is shown
let closing;

/** How things go; the words stay until others come. @param {boolean} isPassing whether a small screen may drop them */
export function say(message, isPassing = false) {
  find("status").textContent = message;
  find("status").classList.toggle("passing", isPassing);
}

/**
 * Show what is wrong.
 *
 * @param {string?} message null: nothing is
 * @param {string} why its cause, as `resolve` calls it: "script", "settings", "voices", "server", "takes", "sound"
 */
export function showProblem(message, why = "server") {
  cause = message ? why : null;
  showText(find("problem-words"), message);
  find("problem").hidden = !message;
}

/** A cause is gone, or has changed: so has what was said of it. */
export function resolve(...causes) {
  if (causes.includes(cause)) showProblem(null);
}

/** Say what was done, with a button that undoes it. @param {string} to "script" or "takes": what it was done to */
export function offerUndo(message, undo, to) {
  const toast = find("toast");
  clearTimeout(closing);
  const act = () => {
    toast.hidden = true;
    undo();
  };
  toast.replaceChildren(
    made("span", {}, message),
    made("button", { type: "button", class: "link", onclick: act }, t("undo")),
  );
  toast.dataset.to = to;
  toast.hidden = false;
  closing = setTimeout(close, UNDO_SECONDS * 1000);

  function close() {
    if (toast.matches(":hover, :focus-within")) closing = setTimeout(close, 1000); // somebody is about to use it
    else toast.hidden = true;
  }
}

/** Something else was done to it, so that undoing would undo that. */
export function withdrawUndo(to) {
  if (find("toast").dataset.to === to) find("toast").hidden = true;
}

/** Prepare the button that puts a problem out of sight; what was said in another language goes by itself. */
export function setUpNotices() {
  onLanguage(() => {
    say("");
    showProblem(null);
    find("toast").hidden = true;
  });
  find("problem-close").addEventListener("click", () => showProblem(null));
}
