/** A recording's waveform, which is also the slider of its position. */

const BAR = 3; // CSS pixels
const GAP = 1;
const STEP_SECONDS = 2; // of an arrow key
const LEAST_SECONDS = 4; // that the canvas stands for, so that the first syllable does not fill it

export class Waveform extends EventTarget {
  #canvas;
  #recording = null;
  #expectedSeconds = 0;
  #position = 0;

  constructor(canvas) {
    super();
    this.#canvas = canvas;
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.#recording?.length) return;
      canvas.setPointerCapture(event.pointerId);
      this.#seekTo(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) this.#seekTo(event);
    });
    canvas.addEventListener("keydown", (event) => this.#onKey(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /**
   * Show a recording; as long as it grows, the canvas stands for what is expected of it, then for what there is.
   *
   * @param {number} position sample that is heard now
   * @param {number} expectedSeconds 0 once the recording is whole
   */
  show(recording, position, expectedSeconds) {
    this.#recording = recording;
    this.#position = position;
    this.#expectedSeconds = expectedSeconds;
    this.draw();
  }

  get #shownSeconds() {
    const { seconds } = this.#recording;
    return this.#expectedSeconds ? Math.max(LEAST_SECONDS, this.#expectedSeconds, seconds * 1.1) : seconds;
  }

  draw() {
    const canvas = this.#canvas;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const scale = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    const [heard, ahead, none] = ["--accent", "--wave", "--line"].map((name) => style.getPropertyValue(name));
    const nBars = Math.floor(width / (BAR + GAP));
    const peaks = this.#recording?.peaks ?? [];
    const shown = this.#recording?.length ? this.#shownSeconds : 1;
    const perBar = this.#recording ? (shown * (peaks.length / (this.#recording.seconds || 1))) / nBars : 1;
    const played = this.#recording?.length ? this.#position / this.#recording.sampleRate / shown : 0;
    for (let bar = 0; bar < nBars; bar++) {
      const from = Math.floor(bar * perBar);
      const to = Math.max(from + 1, Math.floor((bar + 1) * perBar));
      const loudest = peaks.slice(from, to).reduce((a, b) => Math.max(a, b), 0);
      const isThere = from < peaks.length;
      const size = isThere ? Math.max(2, Math.sqrt(loudest) * height * 0.95) : 2;
      pen.fillStyle = isThere ? ((bar + 0.5) / nBars <= played ? heard : ahead) : none;
      pen.beginPath();
      pen.roundRect(bar * (BAR + GAP), (height - size) / 2, BAR, size, 1.5);
      pen.fill();
    }
    this.#describe();
  }

  #describe() {
    const canvas = this.#canvas;
    const there = this.#recording?.seconds ?? 0;
    const now = this.#recording ? this.#position / this.#recording.sampleRate : 0;
    canvas.setAttribute("aria-disabled", String(!there));
    canvas.setAttribute("aria-valuemax", there.toFixed(1));
    canvas.setAttribute("aria-valuenow", now.toFixed(1));
    canvas.setAttribute("aria-valuetext", `${now.toFixed(0)} of ${there.toFixed(0)} seconds`);
  }

  #seekTo(event) {
    const share = (event.clientX - this.#canvas.getBoundingClientRect().left) / this.#canvas.clientWidth;
    this.#ask(share * this.#shownSeconds);
  }

  #onKey(event) {
    if (!this.#recording?.length || event.altKey || event.ctrlKey || event.metaKey) return;
    const now = this.#position / this.#recording.sampleRate;
    const targets = {
      ArrowLeft: now - STEP_SECONDS,
      ArrowDown: now - STEP_SECONDS,
      ArrowRight: now + STEP_SECONDS,
      ArrowUp: now + STEP_SECONDS,
      PageDown: now - 5 * STEP_SECONDS,
      PageUp: now + 5 * STEP_SECONDS,
      Home: 0,
      End: this.#recording.seconds,
    };
    if (!(event.key in targets)) return;
    event.preventDefault();
    this.#ask(targets[event.key]);
  }

  /** Tell the others where to go on, in seconds. */
  #ask(seconds) {
    const detail = Math.max(0, Math.min(seconds, this.#recording.seconds));
    this.dispatchEvent(new CustomEvent("seek", { detail }));
  }
}
