/** Stored voices: who speaks with which, and their list. */

import { addVoice, listVoices, removeVoice } from "./api.js";

const DEFAULT = "default";

export class Voices extends EventTarget {
  #voices = [];
  #isLoaded = false;
  #chosen; // name by speaker; none: the model's own voice
  #speakers = [];
  #casting = document.querySelector("#casting");
  #gap = document.querySelector("#casting-gap");
  #list = document.querySelector("#voices");
  #error = document.querySelector("#voices-error");

  /** @param {unknown} saved what `chosen` was before a reload */
  constructor(saved) {
    super();
    const entries = Object.entries(saved ?? {}).filter(([, name]) => typeof name === "string");
    this.#chosen = new Map(entries.map(([speaker, name]) => [Number(speaker), name]));
    this.#list.addEventListener("click", (event) => this.#onClick(event.target));
    this.#casting.addEventListener("change", ({ target }) => {
      this.#choose(Number(target.dataset.speaker), target.value);
    });
  }

  get chosen() {
    return Object.fromEntries(this.#chosen);
  }

  /** `voices` of a request: those of the speakers who say something. */
  get wanted() {
    const wanted = this.#speakers.filter((speaker) => this.#chosen.has(speaker));
    return Object.fromEntries(wanted.map((speaker) => [`S${speaker}`, this.#chosen.get(speaker)]));
  }

  set speakers(speakers) {
    if (String(speakers) === String(this.#speakers) && this.#casting.children.length) return;
    this.#speakers = speakers;
    this.#showCasting();
  }

  /** Ask the server; what it refuses is shown. */
  async load() {
    this.#error.hidden = true;
    try {
      this.#voices = await listVoices();
    } catch (error) {
      this.#show(error);
      return;
    }
    this.#isLoaded = true;
    for (const [speaker, name] of this.#chosen) if (!this.#find(name)) this.#chosen.delete(speaker);
    this.#list.replaceChildren(...this.#voices.map((voice) => this.#row(voice)));
    this.#showCasting();
    this.dispatchEvent(new Event("change"));
  }

  /** Store a voice and give it to the first speaker who has none. @throws {ApiError} */
  async add(form) {
    await addVoice(form);
    const free = this.#speakers.find((speaker) => !this.#chosen.has(speaker));
    if (free) this.#chosen.set(free, form.get("name"));
    await this.load();
  }

  #choose(speaker, name) {
    if (name === DEFAULT) this.#chosen.delete(speaker);
    else this.#chosen.set(speaker, name);
    this.#showGap();
    this.dispatchEvent(new Event("change"));
  }

  #find(name) {
    return this.#voices.find((voice) => voice.name === name);
  }

  #row(voice) {
    const row = document.querySelector("#voice").content.cloneNode(true).firstElementChild;
    row.dataset.name = voice.name;
    row.querySelector(".name").textContent = voice.name;
    const seconds = Number(voice.seconds).toFixed(1);
    row.querySelector(".hint").textContent = voice.text ? `${seconds} s` : `${seconds} s, no transcript`;
    row.title = voice.text ?? "";
    row.querySelector(".preview").setAttribute("aria-label", `Preview ${voice.name}`);
    row.querySelector(".delete").setAttribute("aria-label", `Delete ${voice.name}`);
    return row;
  }

  #showCasting() {
    const rows = (this.#speakers.length ? this.#speakers : [1]).map((speaker) => {
      const row = document.querySelector("#cast").content.cloneNode(true).firstElementChild;
      row.dataset.speaker = String(speaker);
      row.querySelector(".chip").textContent = `S${speaker}`;
      const select = row.querySelector("select");
      select.dataset.speaker = String(speaker);
      select.setAttribute("aria-label", `Voice of speaker ${speaker}`);
      select.add(new Option("The model’s own", DEFAULT));
      const chosen = this.#chosen.get(speaker);
      const names = this.#voices.map((voice) => voice.name);
      if (!this.#isLoaded && chosen) names.push(chosen);
      for (const name of names) select.add(new Option(name, name));
      select.value = chosen ?? DEFAULT;
      return row;
    });
    this.#casting.replaceChildren(...rows);
    this.#showGap();
  }

  /** Say so if the server will refuse this choice: speakers with a voice are numbered from S1 without a gap. */
  #showGap() {
    const voiced = this.#speakers.filter((speaker) => this.#chosen.has(speaker));
    const gap = voiced.findIndex((speaker, i) => speaker !== i + 1) + 1;
    const remedy = this.#speakers.includes(gap) ? `give S${gap} one too` : `nobody is S${gap}: renumber the speakers`;
    this.#gap.textContent = gap ? `S${voiced.at(-1)} has a voice and S${gap} has none: ${remedy}.` : "";
    this.#gap.hidden = !gap;
  }

  async #onClick(target) {
    const name = target.closest("li")?.dataset.name;
    if (target.matches(".preview")) this.dispatchEvent(new CustomEvent("preview", { detail: this.#find(name) }));
    if (!target.matches(".delete")) return;
    if (!(await isConfirmed(`Delete the voice “${name}”? This cannot be undone.`))) return;
    this.#error.hidden = true;
    try {
      await removeVoice(name);
    } catch (error) {
      this.#show(error);
      if (error.status !== 404) return; // else somebody was faster
    }
    await this.load();
    document.querySelector("#add-voice summary").focus();
    this.dispatchEvent(new CustomEvent("say", { detail: `${name} is deleted.` }));
  }

  #show(error) {
    if (error.status === 401) this.dispatchEvent(new Event("locked"));
    this.#error.textContent = error.message;
    this.#error.hidden = error.status === 401;
  }
}

function isConfirmed(question) {
  const dialog = document.querySelector("#confirm");
  document.querySelector("#confirm-question").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
