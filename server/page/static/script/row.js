/** One turn as a row of the editor. */

import { iconButton, made } from "../common/dom.js";
import { language, t } from "../common/i18n.js";
import { opensMenu } from "../common/menu.js";
import { MAX_SPEAKERS } from "./turns.js";

const GROWS_BY_ITSELF = CSS.supports("field-sizing", "content");

/**
 * @param {string} id of the turn
 * @param {() => object[]} entries of its menu
 * @returns {HTMLLIElement} to be filled by `fillRow`
 */
export function makeRow(id, entries) {
  const more = iconButton("more", "", () => {}, { class: "quiet more" });
  return made(
    "li",
    { class: "turn", dataset: { id } },
    made("span", { class: "grip", "aria-hidden": "true" }),
    made("select", { class: "speaker" }, ...Array.from({ length: MAX_SPEAKERS }, (_, k) => new Option("", k + 1))),
    made("textarea", { class: "words", rows: 1, spellcheck: "true", dir: "auto" }),
    made(
      "span",
      { class: "tools" },
      iconButton("play", "", () => {}, { class: "quiet hear" }),
      iconButton("again", "", () => {}, { class: "quiet again" }),
      opensMenu(more, entries),
      iconButton("close", "", () => {}, { class: "quiet remove" }),
    ),
    made("button", { type: "button", class: "pause", hidden: true }),
  );
}

/**
 * Show a turn as it is now.
 *
 * @param {HTMLLIElement} row
 * @param {object} turn
 * @param {{i: number, n: number, names: Record<number, string>, heard: "same" | "edited" | "new" | null}} place
 *   `heard`: whether the take that is loaded has this turn, with these words or others, or not; null: it is of another script
 */
export function fillRow(row, turn, { i, n, names, heard }) {
  const shown = JSON.stringify([turn, i, n, names, heard, language()]);
  if (row.shown === shown && wordsOf(row).value === turn.words) return;
  row.shown = shown;
  const who = nameOf(turn.speaker, names);
  const values = { i: i + 1, who };
  const [speaker, words] = [row.querySelector(".speaker"), wordsOf(row)];
  row.dataset.speaker = String(turn.speaker);
  row.classList.toggle("edited", heard === "edited" || (heard === "new" && Boolean(turn.words.trim())));
  [...speaker.options].forEach((option, k) => (option.textContent = nameOf(k + 1, names)));
  speaker.value = String(turn.speaker);
  speaker.setAttribute("aria-label", t("turn.speaker", values));
  if (words.value !== turn.words) words.value = turn.words;
  words.setAttribute("aria-label", t("turn.words", values));
  words.placeholder = n === 1 ? t("turn.hint") : "";
  grow(words);
  label(row, ".hear", t("turn.hear", values), heard !== "same" && heard !== "edited");
  label(row, ".again", t("turn.again", values), heard === null || !turn.words.trim());
  label(row, ".more", t("turn.more", values), false);
  label(row, ".remove", t("turn.remove", values), n === 1);
  const pause = row.querySelector(".pause");
  pause.hidden = !turn.pause;
  pause.textContent = t("turn.pause", { seconds: turn.pause });
  pause.setAttribute("aria-label", t("turn.pauseRemove", { ...values, seconds: turn.pause }));
}

export const wordsOf = (row) => row.querySelector(".words");

/** What a speaker is called. */
export const nameOf = (speaker, names) => names[speaker]?.trim() || `S${speaker}`;

function label(row, selector, name, isOff) {
  const button = row.querySelector(selector);
  button.setAttribute("aria-label", name);
  button.title = name;
  button.disabled = isOff;
}

function grow(field) {
  if (GROWS_BY_ITSELF) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}
