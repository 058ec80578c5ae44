/** Speech as it arrives: samples in one growing array, and their peaks for the waveform. */

import { wavFile } from "./wav.js";

export const PEAKS_PER_SECOND = 50;
const FADE_SECONDS = 0.01; // over which one piece goes over into another

export class Recording {
  #samples;

  /** @param {number} sampleRate of all samples, in Hz */
  constructor(sampleRate) {
    this.sampleRate = sampleRate;
    this.length = 0; // samples
    this.peaks = []; // 0 to 1, of every 20 ms
    this.#samples = new Int16Array(sampleRate * 30);
  }

  /** A recording of 16-bit samples. */
  static of(pcm, sampleRate) {
    const recording = new Recording(sampleRate);
    recording.add(pcm);
    return recording;
  }

  get seconds() {
    return this.length / this.sampleRate;
  }

  /** Append 16-bit samples. */
  add(pcm) {
    const length = this.length + pcm.length;
    if (length > this.#samples.length) {
      const longer = new Int16Array(Math.max(length, 2 * this.#samples.length));
      longer.set(this.#samples.subarray(0, this.length));
      this.#samples = longer;
    }
    this.#samples.set(pcm, this.length);
    const bucket = this.sampleRate / PEAKS_PER_SECOND;
    for (let i = 0; i < pcm.length; i++) {
      const at = Math.floor((this.length + i) / bucket);
      this.peaks[at] = Math.max(this.peaks[at] ?? 0, Math.abs(pcm[i]) / 32768);
    }
    this.length = length;
  }

  /** Append what was not recorded with the rest: both sound for some milliseconds, so that nothing clicks. */
  join(pcm) {
    const n = Math.min(Math.round(FADE_SECONDS * this.sampleRate), this.length, pcm.length);
    const start = this.length - n;
    for (let i = 0; i < n; i++) {
      const rising = (i + 0.5) / n;
      this.#samples[start + i] = Math.round(this.#samples[start + i] * (1 - rising) + pcm[i] * rising);
    }
    this.add(pcm.subarray(n));
  }

  /** Append silence; the sound before it fades out. */
  addSilence(seconds) {
    const n = Math.min(Math.round(FADE_SECONDS * this.sampleRate), this.length);
    for (let i = 0; i < n; i++) this.#samples[this.length - 1 - i] *= i / n;
    this.add(new Int16Array(Math.round(seconds * this.sampleRate)));
  }

  /** 16-bit samples `from` to `to`, without a copy. */
  slice(from = 0, to = this.length) {
    return this.#samples.subarray(from, Math.min(to, this.length));
  }

  /** All of it as a WAV file. */
  toWav() {
    return wavFile(this.slice(), this.sampleRate);
  }
}

/** Fade in the beginning of 16-bit samples that follow silence. @returns {Int16Array} a copy */
export function fadedIn(pcm, sampleRate) {
  const copy = pcm.slice();
  const n = Math.min(Math.round(FADE_SECONDS * sampleRate), copy.length);
  for (let i = 0; i < n; i++) copy[i] *= i / n;
  return copy;
}
