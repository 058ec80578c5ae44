/** The page's words in the language of whoever reads it; all of them stand in `words_*.js`, a file for each language. */

import { load, save } from "./store.js";
import { EN } from "./words_en.js";
import { ZH } from "./words_zh.js";

const WORDS = { en: EN, zh: ZH };
const LANGUAGES = Object.keys(WORDS);
const PLACES = { t: null, tLabel: "aria-label", tTitle: "title", tHint: "placeholder" };
const events = new EventTarget();
let current = initial();
let model = ""; // whose words go before those for all

function initial() {
  const saved = load().language;
  if (LANGUAGES.includes(saved)) return saved;
  const wanted = navigator.languages.map((tag) => tag.slice(0, 2));
  return wanted.find((language) => LANGUAGES.includes(language)) ?? LANGUAGES[0];
}

export const language = () => current;

export function setLanguage(wanted) {
  current = LANGUAGES.includes(wanted) ? wanted : LANGUAGES[0];
  save({ language: current });
  translate(document);
  events.dispatchEvent(new Event("change"));
}

/** Say things as they are called with a model: words of the key `KEY@MODEL` stand in the place of those of `KEY`. */
export function setModel(name) {
  model = name;
  translate(document);
  events.dispatchEvent(new Event("change"));
}

/** Call `show` whenever the language or the model changes: for words that stand in no `data-t`. */
export function onLanguage(show) {
  events.addEventListener("change", show);
}

/** Whether there are words for a key. */
export const has = (key) => WORDS[current][key] !== undefined;

/**
 * The words of a key. In the table `{name}` stands for a value, and `{n|turn|turns}` for the first word where n is 1.
 *
 * @throws {Error} there is no such key
 */
export function t(key, values = {}) {
  const found = WORDS[current][`${key}@${model}`] ?? WORDS[current][key];
  if (found === undefined) throw new Error(`there are no words for ${key}`);
  return found.replace(/\{(\w+)(?:\|([^|}]*)\|([^}]*))?\}/g, (_, name, one, many) => {
    if (one !== undefined) return values[name] === 1 ? one : many;
    return typeof values[name] === "number" ? values[name].toLocaleString(current) : String(values[name]);
  });
}

/** Put words into the elements under `root` that name them: `data-t`, `data-t-label`, `data-t-title`, `data-t-hint`. */
export function translate(root) {
  for (const [place, attribute] of Object.entries(PLACES)) {
    const name = place.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    for (const element of root.querySelectorAll(`[data-${name}]`)) {
      const words = t(element.dataset[place]);
      if (attribute) element.setAttribute(attribute, words);
      else element.textContent = words;
    }
  }
  if (root === document) document.documentElement.lang = current === "zh" ? "zh-Hans" : current;
}
