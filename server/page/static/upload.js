/** The form that stores a voice: a file or a recording, its name and its words. */

import { canRecord, record } from "./microphone.js";

const RECORDED_SECONDS = 50; // at most; the server takes a minute unless told otherwise

export class UploadForm {
  #form = document.querySelector("#voice-form");
  #file = document.querySelector("#voice-audio");
  #button = document.querySelector("#record");
  #hint = document.querySelector("#record-hint");
  #heard = document.querySelector("#voice-heard");
  #error = document.querySelector("#voice-error");
  #clip = null; // Blob
  #recording = null;
  #isAsking = false; // for leave to use the microphone

  /** @param {(form: FormData) => Promise<void>} send stores a voice or throws an `ApiError` */
  constructor(send) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(send);
    });
    this.#file.addEventListener("change", () => this.#take(this.#file.files[0] ?? null));
    this.#button.addEventListener("click", () => {
      if (this.#recording) this.#recording.stop();
      else if (!this.#isAsking) this.#record();
    });
    if (!canRecord) {
      this.#button.hidden = true;
      this.#hint.textContent = "To record one here, open this page by HTTPS.";
    }
  }

  #take(clip) {
    this.#clip = clip;
    if (this.#heard.src) URL.revokeObjectURL(this.#heard.src);
    this.#heard.hidden = !clip;
    if (clip) this.#heard.src = URL.createObjectURL(clip);
    else this.#heard.removeAttribute("src");
  }

  async #record() {
    this.#say(null);
    this.#isAsking = true;
    let clock;
    try {
      const recording = await record().finally(() => (this.#isAsking = false));
      this.#recording = recording;
      const started = Date.now();
      this.#button.textContent = "Stop recording";
      this.#button.setAttribute("aria-pressed", "true");
      clock = setInterval(() => {
        const seconds = Math.floor((Date.now() - started) / 1000);
        this.#hint.textContent = `${seconds} s`;
        if (seconds >= RECORDED_SECONDS) recording.stop();
      }, 250);
      this.#file.value = "";
      this.#take(await recording.clip);
      this.#hint.textContent = "recorded";
    } catch (error) {
      this.#hint.textContent = "";
      this.#say(`There is no recording: ${error.message}`);
    } finally {
      clearInterval(clock);
      this.#recording = null;
      this.#button.textContent = "Record";
      this.#button.setAttribute("aria-pressed", "false");
    }
  }

  async #submit(send) {
    this.#say(null);
    const { name, text } = this.#form.elements;
    if (!name.value.trim()) return this.#say("The voice needs a name.", name);
    if (!this.#clip) return this.#say("Choose a clip, or record one.", this.#file);
    const form = new FormData();
    form.set("name", name.value.trim());
    form.set("text", text.value);
    form.set("audio", this.#clip, this.#clip.name ?? "recording.wav");
    const button = this.#form.querySelector("[type=submit]");
    button.disabled = true;
    try {
      await send(form);
      this.#form.reset();
      this.#take(null);
    } catch (error) {
      this.#say(error.message, this.#form.elements[error.param]);
    } finally {
      button.disabled = false;
    }
  }

  /** Show what is wrong and with which field, or that nothing is. */
  #say(message, field) {
    this.#error.textContent = message ?? "";
    this.#error.hidden = !message;
    for (const each of this.#form.elements) each.removeAttribute("aria-invalid");
    field?.setAttribute("aria-invalid", "true");
    field?.focus();
  }
}
