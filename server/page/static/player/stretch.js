/**
 * Speech that is faster or slower and keeps its pitch: short windows of it, laid one over the other at another
 * distance, each where it goes on best from the one before (WSOLA).
 *
 *     source    |--a--|     |--b--|     |--c--|        windows are taken `speed` hops apart, give or take the search
 *     heard     |--a--|
 *                  |--b--|                             and laid one hop apart, each fading into the next
 *                     |--c--|
 */

const HOP_SECONDS = 0.016; // half a window
const SEARCH_SECONDS = 0.008;
const STRIDE = 3; // every so many samples are compared

export class Stretcher {
  #recording;
  #hop;
  #search;
  #speed;
  #at; // in the source, where the next window is looked for
  #goesOn = null; // in the source, where the last window's second half begins

  /** @param {number} from sample of `recording` with which it begins */
  constructor(recording, from, speed) {
    this.#recording = recording;
    this.#hop = Math.round(HOP_SECONDS * recording.sampleRate);
    this.#search = Math.round(SEARCH_SECONDS * recording.sampleRate);
    this.#speed = speed;
    this.#at = from;
  }

  /**
   * What follows.
   *
   * @param {number} n samples, about
   * @param {boolean} isWhole whether the recording will not grow any more
   * @returns {{samples: Float32Array, next: number}} full scale is 1; fewer, or none, where the recording has no more;
   *   `next` is the sample of the recording that is heard after them
   */
  read(n, isWhole) {
    const pieces = [];
    for (let length = 0; length < n; length += this.#hop) {
      if (this.#at + 2 * this.#hop + this.#search > this.#recording.length) {
        if (isWhole) pieces.push(this.#rest());
        break;
      }
      pieces.push(this.#window());
    }
    const samples = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let end = 0;
    for (const piece of pieces) {
      samples.set(piece, end);
      end += piece.length;
    }
    return { samples, next: Math.min(Math.round(this.#at), this.#recording.length) };
  }

  /** One hop: the end of the last window under the beginning of the next. */
  #window() {
    const hop = this.#hop;
    const start = this.#goesOn === null ? Math.round(this.#at) : this.#best(Math.round(this.#at));
    const fresh = this.#recording.slice(start, start + hop);
    const ending = this.#goesOn === null ? fresh : this.#recording.slice(this.#goesOn, this.#goesOn + hop);
    const out = new Float32Array(hop);
    for (let i = 0; i < hop; i++) {
      const rising = 0.5 - 0.5 * Math.cos((Math.PI * (i + 0.5)) / hop);
      out[i] = (ending[i] * (1 - rising) + fresh[i] * rising) / 32768;
    }
    this.#goesOn = start + hop;
    this.#at += hop * this.#speed;
    return out;
  }

  /** Where near `at` the source is most like what would follow the last window. */
  #best(at) {
    const hop = this.#hop;
    const wanted = this.#recording.slice(this.#goesOn, this.#goesOn + hop);
    const from = Math.max(0, at - this.#search);
    const near = this.#recording.slice(from, at + this.#search + hop);
    let [best, found] = [-Infinity, at];
    for (let shift = 0; shift + hop <= near.length; shift += STRIDE) {
      let [product, power] = [0, 1];
      for (let i = 0; i < wanted.length; i += STRIDE) {
        product += wanted[i] * near[shift + i];
        power += near[shift + i] ** 2;
      }
      const likeness = product / Math.sqrt(power);
      if (likeness > best) [best, found] = [likeness, from + shift];
    }
    return found;
  }

  /** The last hundredths of a second, as they are. */
  #rest() {
    const from = this.#goesOn ?? Math.round(this.#at);
    const out = Float32Array.from(this.#recording.slice(from), (sample) => sample / 32768);
    this.#at = this.#goesOn = this.#recording.length;
    return out;
  }
}
