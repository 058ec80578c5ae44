/** Questions that wait for an answer. */

import { find, made, showText } from "./dom.js";
import { t } from "./i18n.js";

/** Whether the user says yes to a question; the button for yes says what it does. */
export async function isConfirmed(question, yes) {
  return (await ask({ question, yes, isDangerous: true })) !== null;
}

/** A line of text, or null: the user thought better of it. */
export function askForLine(question, value, yes) {
  return ask({ question, yes, value, rows: 0 });
}

/** Some lines of text, or null. */
export function askForText(question, value, yes) {
  return ask({ question, yes, value, rows: 6 });
}

export const isAsking = () => document.querySelector("dialog[open]") !== null;

async function ask({ question, yes, value = null, rows = 0, isDangerous = false }) {
  const dialog = find("dialog");
  const [words, field, agree] = ["dialog-question", "dialog-field", "dialog-yes"].map(find);
  showText(words, question);
  agree.textContent = yes;
  agree.className = isDangerous ? "danger" : "primary";
  find("dialog-no").textContent = t("dialog.no");
  find("dialog-no").onclick = () => dialog.close("no"); // no submit button, or Enter would press it
  field.replaceChildren();
  let written = null;
  if (value !== null) {
    const about = { value, dir: "auto", "aria-labelledby": "dialog-question" };
    written = rows
      ? made("textarea", { rows, maxlength: 10_000, ...about })
      : made("input", { maxlength: 200, autocomplete: "off", ...about });
    field.append(written);
  }
  dialog.returnValue = "no";
  dialog.showModal();
  (written ?? find("dialog-no")).focus();
  written?.select();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "yes") return null;
  return written ? written.value : "";
}
