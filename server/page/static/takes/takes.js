/**
 * All takes: every speech that was made, with the project that it was made from.
 *
 * A take: `{id, name, created, project, turns, times, isEstimate, sampleRate, seconds, seed, finishReason, figures}`.
 * `turns` are those that were spoken, `times` when, in the samples as they came, without pauses.
 */

import { newId } from "../common/dom.js";
import { t } from "../common/i18n.js";
import { Recording } from "../speech/recording.js";
import { Database } from "./database.js";

const REMEMBERED = 3; // recordings that are not read again

export class Takes extends EventTarget {
  list = []; // the newest first
  isKept = true;
  #database = new Database();
  #recordings = new Map();

  /** Read what earlier visits have left. */
  async open() {
    this.isKept = await this.#database.open();
    const found = (await this.#database.all()).filter(
      (take) => typeof take?.id === "string" && Array.isArray(take.times),
    );
    this.list = [...this.list, ...found].sort((a, b) => b.created - a.created);
    this.#changed();
  }

  find(id) {
    return this.list.find((take) => take.id === id) ?? null;
  }

  /**
   * Keep a speech.
   *
   * @param {object} made a take without id, name and date
   * @param {Recording} recording as it came
   * @returns {Promise<{take: object, isKept: boolean}>} not kept: there is no room, and it goes with the tab
   */
  async keep(made, recording) {
    const take = { id: newId(), name: this.#nextName(), created: Date.now(), ...made };
    this.list = [take, ...this.list];
    this.#remember(take.id, recording);
    this.#changed();
    navigator.storage?.persist?.().catch(() => {});
    const isKept = await this.#put(take, recording.slice().slice());
    return { take, isKept };
  }

  /** What is known of a take has changed. */
  async update(id, patch) {
    const take = { ...this.find(id), ...patch };
    this.list = this.list.map((each) => (each.id === id ? take : each));
    this.#changed();
    await this.#put(take);
    return take;
  }

  /** Delete a take. @returns {Promise<() => Promise<void>>} brings it back */
  async remove(id) {
    const [take, recording] = [this.find(id), await this.recording(id)];
    this.list = this.list.filter((each) => each.id !== id);
    this.#recordings.delete(id);
    this.#changed();
    await this.#database.remove(id);
    return async () => {
      this.list = [...this.list, take].sort((a, b) => b.created - a.created);
      this.#remember(id, recording);
      this.#changed();
      await this.#put(take, recording.slice().slice());
    };
  }

  /** A take's samples, as they came. @returns {Promise<Recording>} an empty one: they are lost */
  async recording(id) {
    const known = this.#recordings.get(id);
    if (known) return known;
    const { sampleRate } = this.find(id);
    const recording = Recording.of((await this.#database.sound(id)) ?? new Int16Array(0), sampleRate);
    this.#remember(id, recording);
    return recording;
  }

  async #put(take, pcm = null) {
    try {
      await this.#database.put(take, pcm);
      return true;
    } catch {
      return false;
    }
  }

  #nextName() {
    const numbers = this.list.map(({ name }) => Number(/\d+/.exec(name)?.[0] ?? 0));
    return t("take.name", { number: String(Math.max(0, ...numbers.filter((n) => n < 10_000)) + 1) });
  }

  #remember(id, recording) {
    this.#recordings.set(id, recording);
    const others = [...this.#recordings.keys()].filter((each) => each !== id);
    if (this.isKept)
      for (const other of others.slice(0, Math.max(0, others.length - REMEMBERED))) this.#recordings.delete(other);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
