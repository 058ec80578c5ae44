/** Keys that work everywhere on the page. */

import { isAsking } from "./dialog.js";
import { find } from "./dom.js";

const WRITING = "input:not([type=range], [type=checkbox], [type=radio], [type=file]), textarea, select, [role=menu] *";
const PRESSED = "button, a, summary, audio, [role=slider], input";

/**
 * @param {Record<"speak" | "stop" | "play" | "undo" | "redo" | "swap", () => void>} acts
 * @param {() => boolean} isSpeaking whether there is something to stop
 */
export function setUpShortcuts(acts, isSpeaking) {
  document.addEventListener("keydown", (event) => {
    const act = isAsking() || event.isComposing ? null : actOf(event, isSpeaking());
    if (!act) return;
    event.preventDefault();
    acts[act]();
  });
}

function actOf({ key, ctrlKey, metaKey, altKey, shiftKey, target }, isSpeaking) {
  const isCommand = (ctrlKey || metaKey) && !altKey;
  const letter = key.toLowerCase();
  if (isCommand && key === "Enter") return isSpeaking ? null : "speak";
  if (key === "Escape") return isSpeaking && !find("menu").matches(":popover-open") ? "stop" : null;
  const isOwnField = target.closest?.(".voice-form, #key-form, #search-field"); // whose letters are not the project's
  if (isCommand && letter === "z" && !isOwnField) return shiftKey ? "redo" : "undo";
  if (isCommand && letter === "y" && !isOwnField) return "redo";
  if (isCommand || altKey || target.closest?.(WRITING)) return null;
  if (key === " " && !target.closest?.(PRESSED)) return "play";
  return letter === "x" ? "swap" : null;
}
