/** Who speaks: each speaker's name and voice, a view of the project. */

import { find, made } from "../common/dom.js";
import { onLanguage, t } from "../common/i18n.js";
import { showText } from "../common/dom.js";
import { speakersOf } from "../script/turns.js";

const OWN = ""; // the model's own voice

export class Casting {
  #project;
  #library;
  #rows = find("casting");
  #model;

  /**
   * @param {import("./library.js").Library} library of stored voices
   * @param {import("../model/model.js").Model} model that speaks
   */
  constructor(project, library, model) {
    [this.#project, this.#library, this.#model] = [project, library, model];
    project.addEventListener("change", () => this.show());
    library.addEventListener("change", () => this.show());
    onLanguage(() => this.show());
    this.#rows.addEventListener("change", ({ target }) => {
      if (target.matches("select")) this.cast(Number(target.dataset.speaker), target.value);
    });
    this.#rows.addEventListener("input", ({ target }) => {
      if (!target.matches("input")) return;
      const { speaker } = target.dataset;
      const { [speaker]: _, ...others } = project.state.names;
      const names = target.value.trim() ? { ...others, [speaker]: target.value } : others;
      project.change({ names }, `name of ${speaker}`);
    });
    this.show();
  }

  /** Speakers of the script; one where nothing is written, or nobody takes turns. */
  get speakers() {
    if (!this.#model.isDialogue) return [1];
    const speakers = speakersOf(this.#project.turns);
    return speakers.length ? speakers : [1];
  }

  /** The first speaker without a voice, or null. */
  get free() {
    return this.speakers.find((speaker) => !this.#project.state.cast[speaker]) ?? null;
  }

  /** `voices` of a request: those of the speakers who say something. */
  get wanted() {
    const { cast } = this.#project.state;
    return Object.fromEntries(this.#voiced.map((speaker) => [`S${speaker}`, cast[speaker]]));
  }

  /** The same, with what is known of each voice. @returns {{speaker: number, name: string, text: string?}[]} */
  get voices() {
    const { cast } = this.#project.state;
    return this.#voiced.map((speaker) => ({
      speaker,
      name: cast[speaker],
      text: this.#library.find(cast[speaker])?.text ?? null,
    }));
  }

  /** Give a speaker a voice; an empty name means the model's own. */
  cast(speaker, name) {
    const { [speaker]: _, ...others } = this.#project.state.cast;
    this.#project.change({ cast: name === OWN ? others : { ...others, [speaker]: name } });
  }

  /** A cast of these voices: one for each speaker, from the first on, as far as there are voices. */
  castFrom(names) {
    return Object.fromEntries(this.speakers.slice(0, names.length).map((speaker, i) => [speaker, names[i]]));
  }

  /** A voice has another name now, or none. */
  renamed(from, to) {
    const { cast } = this.#project.state;
    if (!Object.values(cast).includes(from)) return;
    const entries = Object.entries(cast).map(([speaker, name]) => [speaker, name === from ? to : name]);
    this.#project.change({ cast: Object.fromEntries(entries.filter(([, name]) => name)) });
  }

  get #voiced() {
    const { cast } = this.#project.state;
    return this.#model.takes("references") ? this.speakers.filter((speaker) => cast[speaker]) : [];
  }

  show() {
    const { names, cast } = this.#project.state;
    const { speakers } = this;
    const isSame = [...this.#rows.children].map((row) => row.dataset.speaker).join() === speakers.join();
    if (!isSame) this.#rows.replaceChildren(...speakers.map((speaker) => this.#row(speaker)));
    for (const row of this.#rows.children) {
      const { speaker } = row.dataset;
      const [name, voice] = [row.querySelector("input"), row.querySelector("select")];
      if (name.value.trim() !== (names[speaker] ?? "").trim()) name.value = names[speaker] ?? "";
      name.placeholder = t("cast.name", { speaker });
      name.setAttribute("aria-label", t("cast.nameOf", { speaker }));
      voice.setAttribute("aria-label", t("cast.voiceOf", { speaker }));
      const known = this.#library.names;
      const chosen = cast[speaker] ?? OWN;
      const all = chosen === OWN || known.includes(chosen) ? known : [...known, chosen];
      voice.replaceChildren(new Option(t("cast.own"), OWN), ...all.map((each) => new Option(each, each)));
      voice.value = chosen;
    }
    showText(find("casting-trouble"), this.trouble);
  }

  #row(speaker) {
    const dataset = { speaker: String(speaker) };
    return made(
      "div",
      { class: "cast", dataset },
      made("span", { class: "chip" }, `S${speaker}`),
      made("input", { maxlength: 40, autocomplete: "off", spellcheck: "false", dir: "auto", dataset }),
      made("select", { dataset }),
    );
  }

  /** Why the server will refuse this choice, or null: a voice that it has not, or none for a speaker before others. */
  get trouble() {
    const { cast } = this.#project.state;
    const missing = this.#library.isLoaded && this.#voiced.find((speaker) => !this.#library.find(cast[speaker]));
    const gap = this.#voiced.findIndex((speaker, i) => speaker !== i + 1) + 1;
    const values = { gap: `S${gap}`, last: `S${this.#voiced.at(-1)}` };
    if (missing) return t("cast.missing", { name: cast[missing], speaker: `S${missing}` });
    return gap ? t(this.speakers.includes(gap) ? "cast.gap" : "cast.gapNobody", values) : null;
  }
}
