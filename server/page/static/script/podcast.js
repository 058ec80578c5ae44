/** A talk about a web page or a document, written by the language model that the server has. */

import { request } from "../common/api.js";
import { find, showProblem } from "../common/dom.js";
import { wordsFor } from "../common/errors.js";
import { t } from "../common/i18n.js";
import { turnsOf } from "./turns.js";

export class Podcast {
  #dialog = find("podcast");
  #form = find("podcast-form");
  #abort = null; // AbortController of a script that is being written

  /** @param {(turns: object[], isCut: boolean) => void} take is given the script; `isCut`: of the source's beginning */
  constructor(take) {
    find("podcast-open").addEventListener("click", () => this.#open());
    find("podcast-no").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => this.#abort?.abort());
    this.#form.addEventListener("input", () => this.#say(null));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.#abort) this.#write(take);
    });
  }

  #open() {
    this.#say(null);
    this.#dialog.showModal();
    find("podcast-url").focus();
  }

  async #write(take) {
    this.#say(null);
    const { url, file } = this.#form.elements;
    const wrong = [...this.#form.elements].find((field) => !field.checkValidity());
    if (wrong) return this.#say(t("problem.settings"), wrong);
    if (!url.value.trim() && !file.files.length) return this.#say(t("podcast.nothing"), url);
    if (url.value.trim() && file.files.length) return this.#say(t("podcast.both"), url);
    const body = new FormData(this.#form);
    body.delete(file.files.length ? "url" : "file");
    const abort = new AbortController();
    this.#show(abort);
    try {
      const answer = await request("page/script", { method: "POST", body, signal: abort.signal });
      const { script, is_cut: isCut } = await answer.json();
      if (abort.signal.aborted) return;
      take(turnsOf(script), isCut);
      this.#form.reset();
      this.#dialog.close();
    } catch (error) {
      if (error.name !== "AbortError") this.#say(wordsFor(error), this.#form.elements[error.param]);
    } finally {
      this.#show(null);
    }
  }

  /** Show whether a script is awaited. */
  #show(abort) {
    this.#abort = abort;
    find("podcast-write").disabled = Boolean(abort);
    find("podcast-status").textContent = abort ? t("podcast.writing") : "";
  }

  /** Show what is wrong and with which field, or that nothing is. */
  #say(message, field) {
    showProblem(this.#form, find("podcast-error"), message, field);
  }
}
