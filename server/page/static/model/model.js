/** Which model of the family the server has, what its requests are made of, and what else the server can do. */

import { request } from "../common/api.js";
import { load, save } from "../common/store.js";

/** What is shown before a server has ever answered: its own answer for MOSS-TTSD. */
const DIALOGUES = {
  name: "ttsd",
  model: "MOSS-TTSD",
  fields: ["instruction", "ambient_sound", "text"],
  required: ["text"],
  max_references: 5,
  max_reference_seconds: 60,
  audio: { temperature: 1.1, top_p: 0.9, top_k: 50 },
  repetition_penalty: 1.1,
  offers: [],
};

/** Events: "change", when the server says something else than was thought; `isOther`: it has another model. */
export class Model extends EventTarget {
  #profile = { ...DIALOGUES, ...profileIn(load().profile), offers: [] };

  /** Ask the server; where it does not answer, what was known stays. */
  async load() {
    const answer = await request("v1/audio/profile").then(
      (response) => response.json(),
      () => null,
    );
    const found = profileIn(answer);
    if (!found || JSON.stringify(found) === JSON.stringify(this.#profile)) return;
    const isOther = found.name !== this.name;
    this.#profile = found;
    save({ profile: found });
    this.dispatchEvent(new CustomEvent("change", { detail: { isOther } }));
  }

  /** `ttsd`, `tts`, `voice` or `sound`. */
  get name() {
    return this.#profile.name;
  }

  /** What its makers call it. */
  get title() {
    return this.#profile.model;
  }

  /** Whether a script has speakers who take turns. */
  get isDialogue() {
    return this.name === "ttsd";
  }

  /** Whether a text describes what is to be heard, and is not spoken. */
  get isDescription() {
    return !this.#profile.required.includes("text");
  }

  /** How codes are drawn where a request says nothing: `temperature`, `top_p`, `top_k`, `repetition_penalty`. */
  get sampling() {
    return { ...this.#profile.audio, repetition_penalty: this.#profile.repetition_penalty };
  }

  /**
   * Whether requests may have a field of the server's table, or
   *
   *     "turns"       of several speakers
   *     "references"  clips, and with them voices
   *     "speech"      words that are spoken
   *     "background"  a sound behind them
   */
  takes(name) {
    if (name === "turns") return this.isDialogue;
    if (name === "references") return this.#profile.max_references > 0;
    if (name === "speech") return !this.isDescription;
    if (name === "background") return !this.isDescription && this.takes("ambient_sound");
    return this.#profile.fields.includes(name);
  }

  /** How many seconds a clip may have. */
  get longestClip() {
    return this.#profile.max_reference_seconds;
  }

  needs(name) {
    return this.#profile.required.includes(name);
  }

  /** Whether the server can do something beside speaking: "design", "script" or "transcript", see its answer. */
  offers(name) {
    return this.#profile.offers.some((offer) => offer.split("-")[0] === name);
  }

  /** Languages of which it drafts transcripts. */
  get heard() {
    return this.#profile.offers.filter((offer) => offer.startsWith("transcript-")).map((offer) => offer.split("-")[1]);
  }
}

/** What a value from elsewhere tells of a model; null: nothing. */
function profileIn(value) {
  const isWords = (list) => Array.isArray(list) && list.every((each) => typeof each === "string");
  const { name, model, fields, required, max_references, audio, repetition_penalty, offers = [] } = value ?? {};
  const { max_reference_seconds = DIALOGUES.max_reference_seconds } = value ?? {};
  if (typeof name !== "string" || typeof model !== "string" || ![fields, required, offers].every(isWords)) return null;
  const { temperature, top_p, top_k } = audio ?? {};
  if (![max_references, max_reference_seconds, temperature, top_p, top_k, repetition_penalty].every(Number.isFinite)) return null;
  const sampling = { audio: { temperature, top_p, top_k }, repetition_penalty };
  return { name, model, fields, required, max_references, max_reference_seconds, ...sampling, offers };
}
