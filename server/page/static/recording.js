/** Speech as it arrives: samples in one growing array, and their peaks for the waveform. */

const PEAKS_PER_SECOND = 50;
const WAV_HEADER_BYTES = 44;

export class Recording {
  /** @param {number} sampleRate of all samples, in Hz */
  constructor(sampleRate) {
    this.sampleRate = sampleRate;
    this.length = 0; // samples
    this.peaks = []; // 0 to 1, of every 20 ms
    this.#samples = new Int16Array(sampleRate * 30);
  }

  #samples;

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

  /** 16-bit samples `from` to `to`, without a copy. */
  slice(from, to) {
    return this.#samples.subarray(from, Math.min(to, this.length));
  }

  /** All of it as a WAV file. */
  toWav() {
    return wavFile(this.slice(0, this.length), this.sampleRate);
  }
}

/** A WAV file of 16-bit mono samples. */
export function wavFile(pcm, sampleRate) {
  const header = new DataView(new ArrayBuffer(WAV_HEADER_BYTES));
  const ascii = (at, word) => [...word].forEach((letter, i) => header.setUint8(at + i, letter.charCodeAt(0)));
  const number = (at, value) => header.setUint32(at, value, true);
  ascii(0, "RIFF");
  number(4, WAV_HEADER_BYTES - 8 + pcm.byteLength);
  ascii(8, "WAVEfmt ");
  number(16, 16);
  number(20, (1 << 16) | 1); // one channel of PCM
  number(24, sampleRate);
  number(28, 2 * sampleRate);
  number(32, (16 << 16) | 2); // 16 bits, 2 bytes a sample
  ascii(36, "data");
  number(40, pcm.byteLength);
  return new Blob([header, pcm], { type: "audio/wav" });
}
