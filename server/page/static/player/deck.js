/** What is in the player: a take with its pauses, or a speech that is still coming, and when each turn is heard. */

import { withPauses } from "../takes/pauses.js";

/** Events: "change", when something else is in it; the player has its own. */
export class Deck extends EventTarget {
  take = null; // that is loaded; null: none, or a speech that is coming
  raw = null; // its samples without pauses
  recording = null; // what is heard
  marks = []; // `{id, speaker, words, start, end}` of each turn in `recording`, in seconds
  isEstimate = false; // whether the marks are
  expectedSeconds = 0; // of a speech that is coming
  #player;
  #live = null; // the last speech that came

  /** @param {import("./player.js").Player} player */
  constructor(player) {
    super();
    this.#player = player;
  }

  get isLive() {
    return this.recording !== null && this.take === null;
  }

  /** What is heard now, in seconds. */
  get seconds() {
    return this.recording ? this.#player.position / this.recording.sampleRate : 0;
  }

  /**
   * Show a speech that is coming, which the player has already.
   *
   * @param {import("../speech/recording.js").Recording} recording that grows
   * @param {object[]} marks that are expected
   */
  showLive(recording, marks, expectedSeconds) {
    const isNew = this.#live !== recording;
    if (!isNew && this.recording !== recording) return; // somebody wanted to hear something else meanwhile
    this.#live = recording;
    Object.assign(this, { take: null, raw: null, recording, marks, isEstimate: true, expectedSeconds });
    if (isNew) this.#changed();
  }

  /**
   * Put a take in; what is playing goes on with it.
   *
   * @param {import("../speech/recording.js").Recording} raw its samples
   * @param {{mark: number, offset: number} | number} place where it goes on: in a turn, or at a second
   */
  load(take, raw, place = 0) {
    const { recording, times } = withPauses(raw, take.turns, take.times);
    const marks = take.turns.map(({ id, speaker, words }, i) => ({ id, speaker, words, ...times[i] }));
    const isInPlayer = recording === this.recording; // since it came: what is scheduled stays so
    Object.assign(this, { take, raw, recording, marks, isEstimate: take.isEstimate, expectedSeconds: 0 });
    if (!isInPlayer) this.#player.put(recording, this.#secondsAt(place) * recording.sampleRate);
    this.#changed();
  }

  /** The same take, of which more is known, or whose times or pauses have changed; it goes on where it was. */
  refresh(take) {
    const { place } = this;
    const isSame =
      this.take.times === take.times && this.take.turns.every((turn, i) => turn.pause === take.turns[i]?.pause);
    if (isSame) this.take = take;
    else this.load(take, this.raw, place);
    if (isSame) this.#changed();
  }

  clear() {
    Object.assign(this, { take: null, raw: null, recording: null, marks: [], isEstimate: false, expectedSeconds: 0 });
    this.#player.clear();
    this.#changed();
  }

  /** Where it is now, as a turn and how much of it has been heard, or null. */
  get place() {
    const mark = this.markAt(this.seconds);
    if (mark < 0) return this.seconds;
    const { start, end } = this.marks[mark];
    return { mark, offset: Math.min(1, (this.seconds - start) / (end - start || 1)) };
  }

  /** The turn that is heard at a moment, by its place; -1: there is none. */
  markAt(seconds) {
    return this.marks.findLastIndex(({ start }) => start <= seconds + 0.01);
  }

  markOf(id) {
    return this.marks.findIndex((mark) => mark.id === id);
  }

  seek(seconds) {
    if (this.recording) this.#player.seek(seconds * this.recording.sampleRate);
    this.dispatchEvent(new Event("seek"));
  }

  /** Play from the beginning of a turn on. */
  playMark(i) {
    this.seek(this.marks[i].start);
    this.#player.play();
  }

  /** To the turn before (-1) or after (1); before means this one's beginning, where it has begun a while ago. */
  step(by) {
    const now = this.markAt(this.seconds);
    const { start = 0 } = this.marks[now] ?? {};
    const to = by < 0 && this.seconds - start > 1.5 ? now : now + by;
    if (to >= this.marks.length) this.seek(this.recording.seconds);
    else this.seek(this.marks[Math.max(0, to)]?.start ?? 0);
  }

  #secondsAt(place) {
    if (typeof place === "number") return place;
    const { start, end } = this.marks[Math.min(place.mark, this.marks.length - 1)] ?? { start: 0, end: 0 };
    return start + place.offset * (end - start);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
