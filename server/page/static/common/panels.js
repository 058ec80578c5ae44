/** The panels beside the script: one is shown at a time. Where there is no room beside it, it is one of them. */

import { find } from "./dom.js";
import { load, save } from "./store.js";

const PANELS = ["script", "voices", "takes", "settings"];
const WIDE = matchMedia("(min-width: 60rem)"); // as in layout.css

export class Panels {
  #shown = "script";
  #beside = "voices"; // what is shown where the script is always there

  constructor() {
    const { panel } = load();
    if (PANELS.includes(panel) && panel !== "script") this.#beside = panel;
    for (const panel of PANELS) find(`tab-${panel}`).addEventListener("click", () => this.show(panel));
    find("tabs").addEventListener("keydown", (event) => this.#onKey(event));
    WIDE.addEventListener("change", () => this.#show());
    this.#show();
  }

  /** Offer a panel, or do not. */
  offer(panel, isOffered) {
    find(`tab-${panel}`).hidden = !isOffered;
    this.#show();
  }

  show(panel) {
    this.#shown = panel;
    if (panel !== "script") this.#beside = panel;
    save({ panel: this.#beside });
    this.#show();
  }

  #show() {
    const wanted = WIDE.matches ? this.#beside : this.#shown;
    const now = find(`tab-${wanted}`).hidden ? "takes" : wanted;
    for (const panel of PANELS) {
      const isShown = panel === now;
      const tab = find(`tab-${panel}`);
      tab.setAttribute("aria-selected", String(isShown));
      tab.tabIndex = isShown ? 0 : -1;
      find(`panel-${panel}`).hidden = !isShown && !(panel === "script" && WIDE.matches);
    }
  }

  #onKey(event) {
    const panels = PANELS.filter((panel) => find(`tab-${panel}`).checkVisibility());
    const now = panels.findIndex((panel) => find(`tab-${panel}`) === document.activeElement);
    const targets = { ArrowRight: now + 1, ArrowLeft: now - 1 + panels.length, Home: 0, End: panels.length - 1 };
    if (now < 0 || !(event.key in targets)) return;
    event.preventDefault();
    const panel = panels[targets[event.key] % panels.length];
    this.show(panel);
    find(`tab-${panel}`).focus();
  }
}
