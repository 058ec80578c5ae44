/** What the server is and how busy it is, in the page's corner, asked for now and then while somebody looks. */

import { serverState } from "../common/api.js";
import { find } from "../common/dom.js";
import { onLanguage, t } from "../common/i18n.js";

const USUAL_MS = 15_000;
const BUSY_MS = 4_000; // while this page waits for it

/** Events: "back", when it can be reached again. */
export class ServerStatus extends EventTarget {
  #isBusy;
  #timer;
  #known = null; // what it said last; null: nothing yet
  #isAway = false;

  /** @param {() => boolean} isBusy whether this page has asked for a speech */
  constructor(isBusy) {
    super();
    this.#isBusy = isBusy;
    document.addEventListener("visibilitychange", () => !document.hidden && this.ask());
    onLanguage(() => this.#show());
  }

  /** Ask now, and again later. */
  async ask() {
    clearTimeout(this.#timer);
    const wasAway = this.#isAway;
    try {
      this.#known = await serverState();
      this.#isAway = false;
    } catch (error) {
      this.#isAway = error.status === 0 || error.status >= 500; // the latter is what a proxy in front of it says
      if (!this.#isAway) this.#known = null; // a key is missing, or this server does not tell
    }
    if (wasAway && !this.#isAway) this.dispatchEvent(new Event("back"));
    this.#show();
    clearTimeout(this.#timer);
    if (!document.hidden) this.#timer = setTimeout(() => this.ask(), this.#isBusy() ? BUSY_MS : USUAL_MS);
  }

  #show() {
    const [box, words] = [find("server"), find("server-words")];
    box.hidden = !this.#isAway && this.#known === null;
    if (box.hidden) return;
    const { model, loads } = this.#known ?? {};
    const sum = (name) => (loads ?? []).reduce((total, load) => total + (Number(load[name]) || 0), 0);
    const [running, waiting] = [sum("num_running_reqs"), sum("num_waiting_reqs")];
    const name = (model ?? "").split("/").filter(Boolean).at(-1) ?? "";
    let state = t("server.ready");
    if (this.#isAway) state = t("server.away");
    else if (waiting) state = t("server.waiting", { running, waiting });
    else if (running) state = t("server.running", { running });
    box.dataset.state = this.#isAway ? "away" : waiting ? "full" : running ? "busy" : "ready";
    find("server-name").textContent = name;
    words.textContent = state;
    box.title = t("server.about", { name: model ?? "", state });
  }
}
