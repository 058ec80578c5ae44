/** A recording's waveform in its speakers' colours, with a mark for each turn; also the slider of its position. */

import { t } from "../common/i18n.js";
import { nameOf } from "../script/row.js";

const BAR = 3; // CSS pixels
const GAP = 1;
const STRIP = 7; // height of the turns' strip above the waveform
const HIT = 14; // height in which the strip is hit
const STEP_SECONDS = 2; // of an arrow key
const LEAST_SECONDS = 4; // that the canvas stands for, so that the first syllable does not fill it
const LEAST_FULL = 0.1; // peak that fills the height, at least, so that silence stays flat
const PALE = 0.38; // what has not been heard

/** Events: "seek", to a second, and "turn", to be played, by its place. */
export class Waveform extends EventTarget {
  #canvas;
  #deck;
  #colours = null;

  /** @param {import("./deck.js").Deck} deck */
  constructor(canvas, deck) {
    super();
    this.#canvas = canvas;
    this.#deck = deck;
    canvas.addEventListener("pointerdown", (event) => this.#onDown(event));
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) this.#seekTo(event);
      else this.#point(event);
    });
    canvas.addEventListener("keydown", (event) => this.#onKey(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#colours = null;
      this.draw();
    });
  }

  /** As long as a recording grows, the canvas stands for what is expected of it, then for what there is. */
  get #shownSeconds() {
    const { recording, expectedSeconds } = this.#deck;
    return expectedSeconds ? Math.max(LEAST_SECONDS, expectedSeconds, recording.seconds * 1.05) : recording.seconds;
  }

  draw() {
    const canvas = this.#canvas;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    this.#describe();
    if (!width) return;
    const scale = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const { recording, marks } = this.#deck;
    if (!recording?.length) return;
    this.#colours ??= this.#readColours();
    const perSecond = width / this.#shownSeconds;
    const now = this.#deck.markAt(this.#deck.seconds);
    marks.forEach((mark, i) => this.#drawMark(pen, mark, perSecond, height, i === now));
    this.#drawBars(pen, width, height, perSecond);
    pen.globalAlpha = 1;
    pen.fillStyle = this.#colours.ink;
    pen.fillRect(Math.min(width - 2, Math.max(0, this.#deck.seconds * perSecond - 1)), 0, 2, height);
  }

  #readColours() {
    const style = getComputedStyle(this.#canvas);
    const speakers = [1, 2, 3, 4, 5].map((speaker) => style.getPropertyValue(`--s${speaker}`));
    return { speakers, ink: style.getPropertyValue("--ink"), line: style.getPropertyValue("--line") };
  }

  /** The strip above a turn, and behind the one that is heard a ground. */
  #drawMark(pen, { speaker, start, end }, perSecond, height, isHeard) {
    const [left, right] = [start * perSecond, end * perSecond];
    pen.fillStyle = this.#colours.speakers[speaker - 1];
    pen.globalAlpha = isHeard ? 1 : 0.55;
    pen.beginPath();
    pen.roundRect(left + 0.5, 0, Math.max(1, right - left - 1), isHeard ? STRIP : STRIP - 2, 2);
    pen.fill();
    if (!isHeard) return;
    pen.globalAlpha = 0.09;
    pen.fillRect(left, STRIP, right - left, height - STRIP);
  }

  #drawBars(pen, width, height, perSecond) {
    const { recording, marks, seconds } = this.#deck;
    const { peaks } = recording;
    const nBars = Math.floor(width / (BAR + GAP));
    const perBar = (peaks.length / recording.seconds) * (width / perSecond / nBars);
    const [top, room] = [STRIP + 2, height - STRIP - 2];
    const full = peaks.reduce((loudest, peak) => Math.max(loudest, peak), LEAST_FULL);
    let mark = 0;
    for (let bar = 0; bar < nBars; bar++) {
      const at = ((bar + 0.5) * (BAR + GAP)) / perSecond; // seconds
      while (mark + 1 < marks.length && marks[mark + 1].start <= at) mark += 1;
      const from = Math.floor(bar * perBar);
      const to = Math.max(from + 1, Math.floor((bar + 1) * perBar));
      let loudest = 0;
      for (let i = from; i < to; i++) loudest = Math.max(loudest, peaks[i] ?? 0);
      const isThere = from < peaks.length;
      const size = isThere ? Math.max(2, Math.sqrt(loudest / full) * room * 0.94) : 2;
      pen.fillStyle = isThere ? this.#colours.speakers[(marks[mark]?.speaker ?? 1) - 1] : this.#colours.line;
      pen.globalAlpha = !isThere || at <= seconds ? 1 : PALE;
      pen.beginPath();
      pen.roundRect(bar * (BAR + GAP), top + (room - size) / 2, BAR, size, 1.5);
      pen.fill();
    }
  }

  #describe() {
    const { recording, seconds } = this.#deck;
    const there = recording?.seconds ?? 0;
    const set = (name, value) => {
      if (this.#canvas.getAttribute(name) !== value) this.#canvas.setAttribute(name, value);
    };
    set("aria-disabled", String(!there));
    set("aria-valuemax", there.toFixed(1));
    set("aria-valuenow", seconds.toFixed(1));
    set("aria-valuetext", t("player.position", { now: seconds.toFixed(0), all: there.toFixed(0) }));
  }

  #secondsAt({ clientX }) {
    return ((clientX - this.#canvas.getBoundingClientRect().left) / this.#canvas.clientWidth) * this.#shownSeconds;
  }

  #onDown(event) {
    if (!this.#deck.recording?.length) return;
    const isStrip = event.clientY - this.#canvas.getBoundingClientRect().top < HIT;
    const turn = isStrip ? this.#deck.markAt(this.#secondsAt(event)) : -1;
    if (turn >= 0) {
      this.dispatchEvent(new CustomEvent("turn", { detail: turn }));
      return;
    }
    this.#canvas.setPointerCapture(event.pointerId);
    this.#seekTo(event);
  }

  /** Say whose turn the mouse points at. */
  #point(event) {
    const { recording, marks, take } = this.#deck;
    const mark = recording?.length ? marks[this.#deck.markAt(this.#secondsAt(event))] : null;
    const who = mark && nameOf(mark.speaker, take?.project.names ?? {});
    const words = mark ? `${who}: ${mark.words.trim().slice(0, 80)}` : "";
    if (this.#canvas.title !== words) this.#canvas.title = words;
  }

  #seekTo(event) {
    this.#ask(this.#secondsAt(event));
  }

  #onKey(event) {
    if (!this.#deck.recording?.length || event.altKey || event.ctrlKey || event.metaKey) return;
    const now = this.#deck.seconds;
    const targets = {
      ArrowLeft: now - STEP_SECONDS,
      ArrowDown: now - STEP_SECONDS,
      ArrowRight: now + STEP_SECONDS,
      ArrowUp: now + STEP_SECONDS,
      PageDown: now - 5 * STEP_SECONDS,
      PageUp: now + 5 * STEP_SECONDS,
      Home: 0,
      End: this.#deck.recording.seconds,
    };
    if (!(event.key in targets)) return;
    event.preventDefault();
    event.stopPropagation();
    this.#ask(targets[event.key]);
  }

  #ask(seconds) {
    const detail = Math.max(0, Math.min(seconds, this.#deck.recording.seconds));
    this.dispatchEvent(new CustomEvent("seek", { detail }));
  }
}
