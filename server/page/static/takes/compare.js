/** Two takes, A and B, of which one is heard: changing between them goes on in the same turn. */

import { find } from "../common/dom.js";
import { onLanguage, t } from "../common/i18n.js";

const SIDES = ["a", "b"];

/** Events: "change", when another take is A or B. */
export class Compare extends EventTarget {
  #takes;
  #deck;
  #open;
  #ids = { a: null, b: null };

  /** @param {(id: string, place: object) => void} open puts a take into the player, at a place */
  constructor(takes, deck, open) {
    super();
    [this.#takes, this.#deck, this.#open] = [takes, deck, open];
    for (const side of SIDES) find(`side-${side}`).addEventListener("click", () => this.hear(side));
    find("sides-close").addEventListener("click", () => {
      this.#ids = { a: null, b: null };
      this.#changed();
    });
    deck.addEventListener("change", () => this.show());
    takes.addEventListener("change", () => {
      for (const side of SIDES) if (!takes.find(this.#ids[side])) this.#ids[side] = null;
      this.#changed();
    });
    onLanguage(() => this.show());
  }

  /** The side that a take is, or null. */
  sideOf(id) {
    return SIDES.find((side) => this.#ids[side] === id) ?? null;
  }

  /** Make a take A or B; the other side is the one that is loaded, where there is none yet. */
  set(side, id) {
    const other = side === "a" ? "b" : "a";
    if (this.#ids[other] === id) this.#ids[other] = null;
    this.#ids[side] = this.#ids[side] === id ? null : id;
    const loaded = this.#deck.take?.id;
    if (this.#ids[side] && !this.#ids[other] && loaded && loaded !== id) this.#ids[other] = loaded;
    this.#changed();
  }

  get isOn() {
    return SIDES.every((side) => this.#ids[side] !== null);
  }

  /** Hear the other one, from where this one is. */
  swap() {
    if (this.isOn) this.hear(this.sideOf(this.#deck.take?.id) === "a" ? "b" : "a");
  }

  hear(side) {
    const id = this.#ids[side];
    if (!id || this.#deck.take?.id === id) return;
    const { place, take } = this.#deck;
    const other = this.#takes.find(id);
    const isSameScript = take && take.turns.length === other.turns.length;
    this.#open(id, isSameScript ? place : this.#deck.seconds);
  }

  show() {
    find("sides").hidden = !this.isOn;
    for (const side of SIDES) {
      const take = this.#takes.find(this.#ids[side]);
      const button = find(`side-${side}`);
      button.setAttribute("aria-pressed", String(Boolean(take) && this.#deck.take?.id === take.id));
      if (take) button.setAttribute("aria-label", t("compare.hear", { side: side.toUpperCase(), name: take.name }));
      if (take) button.title = take.name;
    }
  }

  #changed() {
    this.show();
    this.dispatchEvent(new Event("change"));
  }
}
