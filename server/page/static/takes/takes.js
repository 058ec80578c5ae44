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

/** Events: "change", when there are others or more is known of one; "kept", when there is room again for all. */
export class Takes extends EventTarget {
  list = []; // the newest first
  isKept = true;
  #database = new Database();
  #recordings = new Map();
  #written = new Set(); // ids of takes that are being kept, changed or deleted here
  #homeless = new Set(); // ids of takes for which there was no room: they are in this tab alone

  /** Read what earlier visits have left, and from then on what other tabs change. */
  async open() {
    this.isKept = await this.#database.open((id) => this.#reread(id));
    const found = await this.#database.all().catch(() => []);
    this.#show([...this.list, ...found.filter(isTake)]);
  }

  /** How many are lost with this tab, since there was no room for them. */
  get nHomeless() {
    return this.#homeless.size;
  }

  isHomeless(id) {
    return this.#homeless.has(id);
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
    this.#remember(take.id, recording);
    this.#show([take, ...this.list]);
    navigator.storage?.persist?.().catch(() => {});
    const isKept = await this.#put(take, recording);
    return { take, isKept };
  }

  /** What is known of a take has changed. */
  async update(id, patch) {
    if (!this.find(id)) return;
    const take = { ...this.find(id), ...patch };
    this.#show(this.list.map((each) => (each.id === id ? take : each)));
    await this.#put(take, this.isHomeless(id) ? this.#recordings.get(id) : null);
  }

  /** Delete a take. @returns {Promise<() => Promise<void>>} brings it back */
  async remove(id) {
    const take = this.find(id);
    if (!take) return async () => {};
    const recording = await this.recording(id);
    this.#forget(id);
    await this.#write(id, () => this.#database.remove(id));
    this.#houseOthers();
    return async () => {
      this.#remember(id, recording);
      this.#show([...this.list, take]);
      await this.#put(take, recording);
    };
  }

  /** A take's samples, as they came. @returns {Promise<Recording>} an empty one: they are lost */
  async recording(id) {
    const known = this.#recordings.get(id);
    if (known) return known;
    const { sampleRate } = this.find(id) ?? { sampleRate: 24_000 }; // deleted meanwhile
    const pcm = await this.#database.sound(id).catch(() => null);
    const recording = Recording.of(pcm instanceof Int16Array ? pcm : new Int16Array(0), sampleRate);
    this.#remember(id, recording);
    return recording;
  }

  /** Keep a take, or what is known of it now. @param {Recording?} recording null: as it was */
  async #put(take, recording) {
    const { id } = take;
    const isKept = await this.#write(id, () => this.#database.put(take, recording?.slice().slice() ?? null));
    if (recording && isKept) this.#homeless.delete(id);
    else if (recording && this.find(id)) this.#homeless.add(id);
    if (recording) this.#changed();
    return isKept;
  }

  /** Keep those for which there was no room, as far as there is now. */
  async #houseOthers() {
    const waiting = this.list.filter(({ id }) => this.isHomeless(id));
    for (const take of waiting) if (!(await this.#put(take, this.#recordings.get(take.id)))) return;
    if (waiting.length) this.dispatchEvent(new Event("kept"));
  }

  /** @returns {Promise<boolean>} whether the database did it */
  async #write(id, work) {
    this.#written.add(id);
    try {
      await work();
      return true;
    } catch {
      return false;
    } finally {
      this.#written.delete(id);
    }
  }

  /** Another tab has kept, changed or deleted a take. */
  async #reread(id) {
    const take = await this.#database.take(id).catch(() => null);
    if (this.#written.has(id) || this.isHomeless(id)) return; // this tab knows better
    if (isTake(take)) this.#show([...this.list.filter((each) => each.id !== id), take]);
    else if (this.find(id)) this.#forget(id);
  }

  #forget(id) {
    this.#recordings.delete(id);
    this.#homeless.delete(id);
    this.#show(this.list.filter((each) => each.id !== id));
  }

  #show(list) {
    this.list = list.toSorted((a, b) => b.created - a.created);
    this.#changed();
  }

  #nextName() {
    const numbers = this.list.map(({ name }) => Number(/\d+/.exec(name)?.[0] ?? 0));
    return t("take.name", { number: String(Math.max(0, ...numbers.filter((n) => n < 10_000)) + 1) });
  }

  #remember(id, recording) {
    this.#recordings.set(id, recording);
    const others = [...this.#recordings.keys()].filter((each) => each !== id && !this.isHomeless(each));
    if (this.isKept)
      for (const other of others.slice(0, Math.max(0, others.length - REMEMBERED))) this.#recordings.delete(other);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Whether a value from the database is a take that this page can show. */
function isTake(take) {
  const { id, name, created, project, turns, times, sampleRate, seconds } = take ?? {};
  const isTurn = (turn) => typeof turn?.words === "string" && [1, 2, 3, 4, 5].includes(turn.speaker);
  const isTime = (time) => [time?.start, time?.end].every(Number.isFinite);
  return (
    [id, name].every((text) => typeof text === "string") &&
    [created, sampleRate, seconds].every(Number.isFinite) &&
    typeof project?.names === "object" &&
    [turns, times].every(Array.isArray) &&
    turns.length === times.length &&
    turns.every(isTurn) &&
    times.every(isTime)
  );
}
