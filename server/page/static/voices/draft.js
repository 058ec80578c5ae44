/** A draft of what is said in a clip, by the recogniser that the server has; to be read through. */

import { request } from "../common/api.js";
import { find } from "../common/dom.js";
import { language, t } from "../common/i18n.js";

export class Draft {
  #button = find("draft");
  #list = find("draft-language");
  #abort = null; // AbortController of a draft that is awaited
  #clip = null;

  /**
   * @param {(text: string) => void} take is given what was understood
   * @param {(error: Error) => void} fail is told of what went wrong
   */
  constructor(take, fail) {
    this.#button.addEventListener("click", () => this.#ask(take, fail));
  }

  /** Offer the languages that the server hears. */
  offer(languages) {
    for (const option of this.#list.options) option.hidden = option.disabled = !languages.includes(option.value);
    this.#list.value = languages.includes(language()) ? language() : (languages[0] ?? "");
    this.#list.disabled = languages.length < 2;
  }

  /** Another clip, or null: none. What was to be heard in the one before is of no use any more. */
  set clip(clip) {
    this.#abort?.abort();
    this.#clip = clip;
    this.#button.disabled = !clip;
    find("draft-status").textContent = "";
  }

  async #ask(take, fail) {
    const abort = new AbortController();
    this.#abort = abort;
    this.#button.disabled = true;
    find("draft-status").textContent = t("draft.making");
    let done = "";
    try {
      const options = { method: "POST", body: this.#clip, signal: abort.signal };
      const answer = await request(`page/transcript?language=${this.#list.value}`, options);
      const { text } = await answer.json();
      if (this.#abort !== abort || abort.signal.aborted) return;
      done = t(text ? "draft.done" : "draft.nothing");
      if (text) take(text);
    } catch (error) {
      if (error.name !== "AbortError") fail(error);
    } finally {
      if (!abort.signal.aborted) {
        this.#button.disabled = false;
        find("draft-status").textContent = done;
      }
    }
  }
}
