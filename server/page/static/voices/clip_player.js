/** Plays stored clips as they are, one at a time. */

/** Events: "start", when one begins, and "change", when another one plays, or none. */
export class ClipPlayer extends EventTarget {
  playing = null; // name of the voice that is heard
  #fetch;
  #audio = new Audio();
  #addresses = new Map(); // of clips that are here, by name

  /** @param {(name: string) => Promise<Blob>} fetch */
  constructor(fetch) {
    super();
    this.#fetch = fetch;
    for (const type of ["ended", "error"]) this.#audio.addEventListener(type, () => this.#set(null));
  }

  /**
   * Play a voice's clip, or stop it.
   *
   * @throws {ApiError} it cannot be fetched
   * @throws {DOMException} NotSupportedError: the browser cannot play it
   */
  async toggle(name) {
    const wasPlaying = this.playing;
    this.stop();
    if (wasPlaying === name) return;
    this.#set(name);
    this.dispatchEvent(new Event("start"));
    try {
      if (!this.#addresses.has(name)) this.#addresses.set(name, URL.createObjectURL(await this.#fetch(name)));
      if (this.playing !== name) return;
      this.#audio.src = this.#addresses.get(name);
      await this.#audio.play();
    } catch (error) {
      if (this.playing === name) this.#set(null);
      if (error.name !== "AbortError" && error.name !== "NotAllowedError") throw error; // else it was stopped
    }
  }

  stop() {
    this.#audio.pause();
    this.#set(null);
  }

  /** Clips may have changed. */
  forget() {
    this.stop();
    for (const address of this.#addresses.values()) URL.revokeObjectURL(address);
    this.#addresses.clear();
  }

  #set(name) {
    if (this.playing === name) return;
    this.playing = name;
    this.dispatchEvent(new Event("change"));
  }
}
