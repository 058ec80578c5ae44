/** One speech: asked for, played while it comes, measured. Only one at a time. */

import { Recording } from "./recording.js";

const USUAL_RATE = 24000; // Hz; the server says its own in its answer

export class Speech extends EventTarget {
  recording = null; // that grows, or grew last
  firstSoundMs = 0;
  #player;
  #abort = null; // AbortController of what is asked for
  #heard = null; // of what is heard
  #elapsedMs = 0; // up to the last audio
  #isQuiet = false;

  /** @param {import("../player/player.js").Player} player */
  constructor(player) {
    super();
    this.#player = player;
  }

  /** Whether an answer is awaited or arriving. */
  get isComing() {
    return this.#abort !== null;
  }

  /** Whether some of it is here already, and played. */
  get isHeard() {
    return this.isComing && this.#heard === this.#abort && !this.#isQuiet;
  }

  /** End it, here and on the server. */
  stop() {
    this.#abort?.abort();
  }

  /**
   * Ask, and play until everything is here; what was heard before is kept until the first sound. To be called in answer
   * to a click or key.
   *
   * @param {(signal: AbortSignal) => AsyncIterable<object>} ask pieces, see `events.js`
   * @param {{before?: Recording, from?: number, after?: Int16Array, isQuiet?: boolean}} place samples in front
   *   of it and behind it; `before` is cut at sample `from`; a quiet one is not played
   * @returns {Promise<{recording: Recording?, start: number, end: number, finishReason: string, turns: object[]?,
   *   error: Error?, firstSoundMs: number, workSeconds: number}>} `recording` is null where nothing came; the new part
   *   lies from sample `start` to `end`; `finishReason` is the server's, or "stopped", or "broken" with an error
   */
  async begin(ask, { before = null, from = 0, after = null, isQuiet = false } = {}) {
    this.stop();
    const abort = new AbortController();
    this.#abort = abort;
    this.#player.pause();
    this.#player.finish(); // of what was heard nothing more will come
    this.#isQuiet = isQuiet;
    this.#player.open(before?.sampleRate ?? USUAL_RATE);
    const started = performance.now();
    this.#changed();
    const result = { recording: null, start: from, end: from, finishReason: "stopped", turns: null, error: null };
    try {
      for await (const piece of ask(abort.signal)) {
        if (this.#abort !== abort) break; // another has begun
        if (piece.finishReason) {
          result.finishReason = piece.finishReason;
          result.turns = piece.turns;
          continue;
        }
        this.#elapsedMs = performance.now() - started;
        if (!result.recording) {
          result.recording = this.#open(abort, piece, before, from);
          result.firstSoundMs = this.firstSoundMs = this.#elapsedMs;
        } else result.recording.add(piece.pcm);
        result.end = result.recording.length;
        result.workSeconds = this.#elapsedMs / 1000;
        if (!isQuiet) this.#player.more();
        this.#changed();
      }
      if (after && result.recording && result.finishReason !== "stopped") result.recording.join(after);
    } catch (error) {
      result.finishReason = abort.signal.aborted ? "stopped" : "broken";
      if (!abort.signal.aborted) result.error = error;
    } finally {
      if (this.#abort === abort) {
        this.#abort = null;
        if (this.#heard === abort && !isQuiet) this.#player.finish();
        this.#changed();
      }
    }
    return result;
  }

  #open(abort, { sampleRate, pcm }, before, from) {
    this.#heard = abort;
    this.recording = before ? Recording.of(before.slice(0, from), sampleRate) : new Recording(sampleRate);
    if (!this.#isQuiet) this.#player.load(this.recording, from);
    this.recording.join(pcm);
    return this.recording;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
