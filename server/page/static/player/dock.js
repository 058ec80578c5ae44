/** The bar at the bottom beside its transport: Speak or Stop, the download, figures for engineers. */

import { find, showIcon } from "../common/dom.js";
import { language, onLanguage, t } from "../common/i18n.js";
import { opensMenu } from "../common/menu.js";
import { load, save } from "../common/store.js";
import { formats } from "../takes/download.js";

export class Dock {
  #studio;
  #speech;
  #deck;

  /**
   * @param {(take: object, format: string) => void} saveTake
   * @param {(seed: number) => void} keepSeed
   */
  constructor({ studio, speech, deck }, saveTake, keepSeed) {
    [this.#studio, this.#speech, this.#deck] = [studio, speech, deck];
    find("speak").addEventListener("click", () => this.speakOrStop());
    find("update").addEventListener("click", () => studio.update());
    opensMenu(find("download"), () => formats((format) => saveTake(deck.take, format)));
    find("seed").addEventListener("click", () => keepSeed(deck.take.seed));
    find("show-figures").checked = load().figures === true;
    find("show-figures").addEventListener("change", ({ target }) => {
      save({ figures: target.checked });
      this.show();
    });
    for (const source of [speech, studio, deck]) source.addEventListener("change", () => this.show());
    onLanguage(() => this.show());
    this.show();
  }

  speakOrStop() {
    if (this.#studio.isBusy) this.#speech.stop();
    else this.#studio.speak();
  }

  show() {
    const isComing = this.#studio.isBusy;
    const speak = find("speak");
    showIcon(speak, isComing ? "stop" : "speak", t(isComing ? "stop" : "speak"));
    speak.querySelector("span").textContent = t(isComing ? "stop" : "speak");
    speak.className = isComing ? "danger" : "primary";
    document.body.classList.toggle("speaking", isComing);
    this.#showChanges(isComing);
    find("download").disabled = !this.#deck.take;
    this.#showFigures();
  }

  /** Offer to speak only what was changed in the script. */
  #showChanges(isBusy) {
    const n = this.#studio.nChanged;
    const update = find("update");
    update.hidden = n === null || isBusy;
    if (n === null) return;
    update.querySelector(".count").textContent = n ? String(n) : "";
    update.title = n ? t("update.why", { n }) : t("update.whyNone");
    update.setAttribute("aria-label", `${t("update")}: ${update.title}`); // its words are not always in sight
  }

  #showFigures() {
    const { take, recording } = this.#deck;
    find("figures").hidden = !find("show-figures").checked || !recording;
    if (find("figures").hidden) return;
    const { firstSoundMs = this.#speech.firstSoundMs, realTimeFactor } = take?.figures ?? {};
    find("first-sound").textContent = `${Math.round(firstSoundMs).toLocaleString(language())} ms`;
    find("length").textContent = `${recording.seconds.toFixed(2)} s`;
    find("rtf").textContent = realTimeFactor
      ? `${realTimeFactor.toFixed(2)} (${(1 / realTimeFactor).toFixed(1)}×)`
      : "–";
    find("finish").textContent = take?.finishReason ?? "–";
    const seed = find("seed");
    seed.textContent = take ? String(take.seed) : "–";
    seed.setAttribute("aria-label", take ? t("figures.keepSeed", { seed: String(take.seed) }) : t("figures.noSeed"));
    seed.disabled = !take;
  }
}
