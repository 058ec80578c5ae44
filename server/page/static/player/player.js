/**
 * Plays a recording while it still grows.
 *
 * Pieces of it are scheduled end to end on the clock of an audio context that runs at the recording's own rate, so that
 * nothing is resampled and no gap can open between two of them. If the samples run out before the next arrive, playback
 * waits until some are in hand, longer each time. Works on plain HTTP too, where there are no audio worklets.
 */

import { Stretcher } from "./stretch.js";

const LEAD_SECONDS = 0.06; // from now to the first piece
const AHEAD_SECONDS = 8; // scheduled at most
const PIECE_SECONDS = 1;
const PUMP_MS = 100;
const FIRST_WAIT_SECONDS = 0.5; // in hand before playback goes on after it ran dry

export class Player extends EventTarget {
  #context = null;
  #gain = null;
  #volume = 1;
  #speed = 1;
  #stretcher = null; // where the speed is not 1, of the run that is scheduled
  #recording = null;
  #isWhole = false;
  #sources = new Set();
  #start = 0; // sample with which the scheduled run began
  #next = 0; // sample that is scheduled next
  #until = 0; // context time at which it will be heard
  #isRunning = false; // pieces up to #next follow each other on the clock
  #wait = 0; // seconds to have in hand before a run begins
  #isPlaying = false;

  constructor() {
    super();
    setInterval(() => this.#pump(), PUMP_MS);
  }

  /** Get the device ready; to be called in answer to a click or key, or browsers keep it silent. */
  open(sampleRate) {
    if (this.#context?.sampleRate !== sampleRate) {
      this.#context?.close();
      this.#context = new AudioContext({ sampleRate });
      this.#gain = new GainNode(this.#context, { gain: this.#volume });
      this.#gain.connect(this.#context.destination);
    }
    this.#context.resume();
  }

  /** Play a recording that grows, from a sample on. */
  load(recording, from = 0) {
    this.#show(recording, from, false);
    this.#setPlaying(true);
  }

  /** Have a recording in hand that is whole, at a sample; it plays on where the last one did. */
  put(recording, from) {
    const isPlaying = this.#isPlaying;
    this.#show(recording, from, true);
    this.#setPlaying(isPlaying);
    this.#pump();
  }

  /** Have nothing in hand. */
  clear() {
    this.#silence();
    this.#recording = null;
    this.#next = this.#start = 0;
    this.#setPlaying(false);
  }

  /** Samples were added to the recording. */
  more() {
    this.#pump();
  }

  /** Nothing will be added any more. */
  finish() {
    this.#isWhole = true;
    this.#pump();
  }

  get isPlaying() {
    return this.#isPlaying;
  }

  /** Of 1; the pitch stays. */
  set speed(speed) {
    const { position } = this;
    this.#speed = speed;
    if (this.#recording) this.seek(position);
  }

  /** 0 to 1. */
  set volume(volume) {
    this.#volume = volume;
    if (this.#gain) this.#gain.gain.value = volume;
  }

  /** Sample that is heard now. */
  get position() {
    if (!this.#isRunning) return this.#next;
    const left = Math.max(0, this.#until - this.#context.currentTime) * this.#speed;
    return Math.max(this.#start, this.#next - Math.round(left * this.#recording.sampleRate));
  }

  play() {
    if (!this.#recording) return;
    this.open(this.#recording.sampleRate);
    if (this.#isWhole && this.position >= this.#recording.length) this.seek(0);
    this.#setPlaying(true);
    this.#pump();
  }

  pause() {
    const { position } = this;
    this.#silence();
    this.#next = this.#start = position;
    this.#context?.suspend();
    this.#setPlaying(false);
  }

  /** Go on from a sample. */
  seek(sample) {
    if (!this.#recording) return;
    this.#silence();
    this.#next = this.#start = Math.max(0, Math.min(Math.round(sample), this.#recording.length));
    this.#pump();
  }

  #show(recording, from, isWhole) {
    this.#silence();
    if (this.#isPlaying || !isWhole) this.open(recording.sampleRate);
    this.#recording = recording;
    this.#isWhole = isWhole;
    this.#wait = 0;
    this.#next = this.#start = Math.max(0, Math.min(Math.round(from), recording.length));
  }

  #setPlaying(isPlaying) {
    this.#isPlaying = isPlaying;
    this.dispatchEvent(new Event("change"));
  }

  #silence() {
    for (const source of this.#sources) source.stop();
    this.#sources.clear();
    this.#isRunning = false;
  }

  #pump() {
    if (!this.#isPlaying || !this.#recording) return;
    const now = this.#context.currentTime;
    if (this.#isRunning && this.#until <= now) {
      this.#isRunning = false;
      if (!this.#isWhole) this.#wait = Math.min(8, 2 * this.#wait || FIRST_WAIT_SECONDS);
    }
    const inHand = this.#recording.length - this.#next;
    if (!this.#isRunning) {
      if (!inHand) {
        if (this.#isWhole) this.pause();
        return;
      }
      if (!this.#isWhole && inHand < this.#wait * this.#recording.sampleRate) return;
      this.#isRunning = true;
      this.#start = this.#next;
      this.#until = now + LEAD_SECONDS;
      this.#stretcher = this.#speed === 1 ? null : new Stretcher(this.#recording, this.#next, this.#speed);
    }
    while (this.#next < this.#recording.length && this.#until < now + AHEAD_SECONDS) if (!this.#schedule()) break;
  }

  /** Schedule the next piece. @returns {boolean} whether there was one */
  #schedule() {
    const { sampleRate } = this.#recording;
    const { samples, next } = this.#stretcher?.read(PIECE_SECONDS * sampleRate, this.#isWhole) ?? this.#piece();
    this.#next = next;
    if (!samples.length) return false;
    const buffer = this.#context.createBuffer(1, samples.length, sampleRate);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(this.#context, { buffer });
    source.connect(this.#gain);
    source.onended = () => this.#sources.delete(source);
    source.start(this.#until);
    this.#sources.add(source);
    this.#until += samples.length / sampleRate;
    return true;
  }

  #piece() {
    const pcm = this.#recording.slice(this.#next, this.#next + PIECE_SECONDS * this.#recording.sampleRate);
    return { samples: Float32Array.from(pcm, (sample) => sample / 32768), next: this.#next + pcm.length };
  }
}
