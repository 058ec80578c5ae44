/** One speech: asked for, played while it comes, measured. Only one at a time. */

import { speak } from "./api.js";
import { Recording } from "./recording.js";

const USUAL_RATE = 24000; // Hz; the server says its own in its answer

export class Speech extends EventTarget {
  request = null; // `{body, name, expectedSeconds}` of what is heard
  recording = null;
  firstSoundMs = 0;
  #player;
  #abort = null; // AbortController of what is asked for
  #heard = null; // of what is heard
  #elapsedMs = 0; // up to the last audio

  /** @param {import("./player.js").Player} player */
  constructor(player) {
    super();
    this.#player = player;
  }

  get isComing() {
    return this.#abort !== null;
  }

  /** How long it will be, about; 0 once nothing more will come. */
  get expectedSeconds() {
    return this.isComing && this.#abort === this.#heard ? this.request.expectedSeconds : 0;
  }

  /** Seconds of work per second of audio so far. */
  get realTimeFactor() {
    return this.#elapsedMs / 1000 / this.recording.seconds;
  }

  /** End it, here and on the server. */
  stop() {
    this.#abort?.abort();
  }

  /**
   * Ask, and play until everything is here; what was heard before is kept until the first sound. To be called in answer
   * to a click or key.
   *
   * @param {{body: object, name: string, expectedSeconds: number}} request fields, a name for files, length, about
   * @returns {Promise<boolean>} whether it came whole; false: it was stopped
   * @throws {ApiError} what came is kept
   */
  async begin(request) {
    this.stop();
    const abort = new AbortController();
    this.#abort = abort;
    this.#player.pause();
    this.#player.finish(); // of what was heard nothing more will come
    this.#player.open(USUAL_RATE);
    const started = performance.now();
    this.#changed();
    try {
      for await (const { sampleRate, pcm } of speak(request.body, abort.signal)) {
        if (this.#abort !== abort) return false; // another has begun
        this.#elapsedMs = performance.now() - started;
        if (this.#heard !== abort) this.#open(request, sampleRate);
        this.recording.add(pcm);
        this.#player.more();
        this.#changed();
      }
      return true;
    } catch (error) {
      if (abort.signal.aborted) return false;
      throw error;
    } finally {
      if (this.#abort === abort) {
        this.#abort = null;
        if (this.#heard === abort) this.#player.finish();
        this.#changed();
      }
    }
  }

  #open(request, sampleRate) {
    this.#heard = this.#abort;
    this.request = request;
    this.firstSoundMs = this.#elapsedMs;
    this.recording = new Recording(sampleRate);
    this.#player.load(this.recording);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
