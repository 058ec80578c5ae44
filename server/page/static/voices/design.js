/** The form that has a voice made from its description: heard, made anew until it is right, and stored. */

import { post } from "../common/api.js";
import { find, showProblem } from "../common/dom.js";
import { wordsFor } from "../common/errors.js";
import { onLanguage, t } from "../common/i18n.js";
import { bytesOf } from "../speech/events.js";
import { showSpeakers } from "./upload.js";

export class DesignForm {
  #form = find("design-form");
  #button = find("design-make");
  #heard = find("design-heard");
  #abort = null; // AbortController of a voice that is being made
  #made = null; // {clip: Blob, text: string}

  /**
   * @param {() => {speakers: {speaker: number, name: string}[], free: number?}} speakers see `UploadForm`
   * @param {(voice: {name: string, clip: Blob, text: string, speaker: number?}) => Promise<void>} send likewise
   * @param {() => void} hush is called before the voice is heard
   */
  constructor(speakers, send, hush) {
    const show = () => {
      showSpeakers(this.#form.elements.cast, speakers());
      this.#showButton();
    };
    find("design-voice").addEventListener("toggle", show);
    this.#form.addEventListener("input", () => this.#say(null));
    this.#heard.addEventListener("play", hush);
    this.#button.addEventListener("click", () => (this.#abort ? this.#abort.abort() : this.#make()));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#made) this.#store(send);
    });
    onLanguage(show);
    show();
  }

  /** Be silent. */
  hush() {
    this.#heard.pause();
  }

  #showButton() {
    this.#button.textContent = t(this.#abort ? "stop" : this.#made ? "design.another" : "design.make");
    this.#button.className = this.#made || this.#abort ? "" : "primary";
    find("design-made").hidden = find("design-store").hidden = !this.#made;
  }

  async #make() {
    this.#say(null);
    const { description, text } = this.#form.elements;
    if (!description.value.trim()) return this.#say(t("design.noDescription"), description);
    this.#abort = new AbortController();
    this.#showButton();
    find("design-status").textContent = t("design.making");
    try {
      const asked = { description: description.value, text: text.value };
      const made = await (await post("page/design", asked, this.#abort.signal)).json();
      this.#take(new Blob([bytesOf(made.audio)], { type: "audio/wav" }), made.text);
      this.#heard.play().catch(() => {}); // a browser that lets nothing sound by itself
    } catch (error) {
      if (error.name !== "AbortError") this.#say(wordsFor(error), this.#form.elements[error.param]);
    } finally {
      this.#abort = null;
      find("design-status").textContent = "";
      this.#showButton();
    }
  }

  #take(clip, text) {
    this.#made = clip && { clip, text };
    if (this.#heard.src) URL.revokeObjectURL(this.#heard.src);
    if (clip) this.#heard.src = URL.createObjectURL(clip);
    else this.#heard.removeAttribute("src");
    find("design-said").textContent = text;
  }

  async #store(send) {
    this.#say(null);
    const { name, cast } = this.#form.elements;
    if (!name.value.trim()) return this.#say(t("upload.noName"), name);
    const button = find("design-store");
    button.disabled = true;
    try {
      await send({ name: name.value.trim(), ...this.#made, speaker: Number(cast.value) || null });
      this.#form.reset();
      this.#take(null, "");
      this.#showButton();
      find("design-voice").open = false;
      find("design-voice").querySelector("summary").focus();
    } catch (error) {
      this.#say(wordsFor(error), this.#form.elements[error.param]);
    } finally {
      button.disabled = false;
    }
  }

  /** Show what is wrong and with which field, or that nothing is. */
  #say(message, field) {
    showProblem(this.#form, find("design-error"), message, field);
  }
}
