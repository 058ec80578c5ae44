/** The form that stores a voice: a clip that is chosen, dropped or recorded, its name, its words, and who gets it. */

import { find, made, showProblem } from "../common/dom.js";
import { wordsFor } from "../common/errors.js";
import { takeDropped } from "../common/files.js";
import { onLanguage, t } from "../common/i18n.js";
import { checkClip } from "./clip_check.js";
import { Draft } from "./draft.js";
import { canRecord, record } from "./microphone.js";

const RECORDED = { seconds: 50, share: 0.9 }; // at most, the latter of what the server takes
const NO_RECORDING = { NotAllowedError: "upload.notAllowed", NotFoundError: "upload.noMicrophone" };

export class UploadForm {
  #form = find("voice-form");
  #file = find("voice-audio");
  #button = find("record");
  #hint = find("record-hint");
  #heard = find("voice-heard");
  #clip = null; // Blob
  #recording = null;
  #isAsking = false; // for leave to use the microphone
  #speakers;
  #model;
  #draft = new Draft(
    (text) => {
      this.#form.elements.text.value = text;
      this.#form.elements.text.focus();
    },
    (error) => this.#say(wordsFor(error)),
  );

  /**
   * @param {() => {speakers: {speaker: number, name: string}[], free: number?}} speakers who may get the voice, and who
   *   has none yet
   * @param {(voice: {name: string, clip: Blob, text: string, speaker: number?}) => Promise<void>} send stores it or
   *   throws an `ApiError`
   * @param {import("../model/model.js").Model} model that speaks
   */
  constructor(speakers, send, model) {
    [this.#speakers, this.#model] = [speakers, model];
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(send);
    });
    this.#form.addEventListener("input", ({ target }) => {
      if (target !== this.#file) this.#say(null);
    });
    this.#file.addEventListener("change", () => this.#choose(this.#file.files[0] ?? null));
    takeDropped(find("panel-voices"), (file) => {
      find("add-voice").open = true;
      this.#file.value = "";
      this.#choose(file);
      this.#form.scrollIntoView({ block: "nearest" });
    });
    find("add-voice").addEventListener("toggle", () => this.showSpeakers());
    this.#button.addEventListener("click", () => {
      if (this.#recording) this.#recording.stop();
      else if (!this.#isAsking) this.#record();
    });
    this.#button.hidden = !canRecord;
    onLanguage(() => this.#showWords());
    this.#showWords();
  }

  /** Offer drafts of transcripts in these languages. */
  offerDrafts(languages) {
    this.#draft.offer(languages);
  }

  /** Show who may get the voice; whoever has none is chosen. */
  showSpeakers() {
    showSpeakers(this.#form.elements.cast, this.#speakers());
  }

  #showWords() {
    if (!this.#recording) this.#button.lastChild.textContent = t("upload.record");
    this.#hint.textContent = t(canRecord ? "upload.orRecord" : "upload.needsHttps");
    this.showSpeakers();
  }

  #choose(clip) {
    this.#say(null);
    this.#take(clip);
    const { name } = this.#form.elements;
    if (clip?.name && !name.value.trim()) name.value = nameIn(clip.name);
  }

  async #take(clip) {
    this.#clip = this.#draft.clip = clip;
    if (this.#heard.src) URL.revokeObjectURL(this.#heard.src);
    this.#heard.hidden = !clip;
    const list = find("clip-findings");
    list.replaceChildren();
    list.ariaBusy = String(Boolean(clip));
    if (!clip) {
      this.#heard.removeAttribute("src");
      return;
    }
    this.#heard.src = URL.createObjectURL(clip);
    const { findings } = await checkClip(clip, this.#model.longestClip);
    if (this.#clip !== clip) return;
    list.replaceChildren(...findings.map((words) => made("li", {}, words)));
    list.ariaBusy = "false";
  }

  async #record() {
    this.#say(null);
    this.#isAsking = true;
    const meter = find("meter");
    let timer;
    try {
      const recording = await record((level) => (meter.value = level)).finally(() => (this.#isAsking = false));
      this.#recording = recording;
      const started = Date.now();
      const longest = Math.min(RECORDED.seconds, RECORDED.share * this.#model.longestClip);
      this.#button.lastChild.textContent = t("upload.stop");
      this.#button.setAttribute("aria-pressed", "true");
      meter.hidden = false;
      timer = setInterval(() => {
        const seconds = Math.floor((Date.now() - started) / 1000);
        this.#hint.textContent = t("upload.seconds", { seconds });
        if (seconds >= longest) recording.stop();
      }, 250);
      this.#file.value = "";
      this.#take(await recording.clip);
      this.#hint.textContent = t("upload.recorded");
    } catch (error) {
      this.#hint.textContent = "";
      this.#say(t(NO_RECORDING[error.name] ?? "upload.noRecording", { why: error.message }));
    } finally {
      clearInterval(timer);
      meter.hidden = true;
      this.#recording = null;
      this.#button.lastChild.textContent = t("upload.record");
      this.#button.setAttribute("aria-pressed", "false");
    }
  }

  async #submit(send) {
    this.#say(null);
    const { name, text, cast } = this.#form.elements;
    if (!this.#clip) return this.#say(t("upload.noClip"), this.#file);
    if (!name.value.trim()) return this.#say(t("upload.noName"), name);
    const button = this.#form.querySelector("[type=submit]");
    const voice = { name: name.value.trim(), clip: this.#clip, text: text.value, speaker: Number(cast.value) || null };
    button.disabled = true;
    try {
      await send(voice);
      this.#form.reset();
      this.#take(null);
      find("add-voice").open = false;
      find("add-voice").querySelector("summary").focus();
    } catch (error) {
      this.#say(wordsFor(error), this.#form.elements[error.param]);
    } finally {
      button.disabled = false;
    }
  }

  /** Show what is wrong and with which field, or that nothing is. */
  #say(message, field) {
    showProblem(this.#form, find("voice-error"), message, field);
  }
}

/** Show in a list who may get a voice; whoever has none is chosen. */
export function showSpeakers(list, { speakers, free }) {
  const options = speakers.map(({ speaker, name }) => new Option(name, speaker));
  list.replaceChildren(new Option(t("upload.nobody"), ""), ...options);
  list.value = free ? String(free) : "";
}

/** What a file is called, as a name that a voice can have. */
function nameIn(file) {
  return file
    .replace(/\.[^.]*$/, "")
    .replace(/[^\p{L}\p{N}\p{M}_.-]+/gu, " ")
    .replace(/^[^\p{L}\p{N}]+/u, "")
    .slice(0, 64)
    .trim();
}
