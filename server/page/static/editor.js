/** The script as a list of turns, each with its speaker, or as one text with tags. */

import { MAX_SPEAKERS, hasTag, scriptOf, turnsOf } from "./script.js";

const GROWS_BY_ITSELF = CSS.supports("field-sizing", "content");

export class Editor extends EventTarget {
  #list = document.querySelector("#turns");
  #text = document.querySelector("#text");
  #template = document.querySelector("#turn");

  constructor() {
    super();
    this.#list.addEventListener("keydown", (event) => this.#onKey(event));
    this.#list.addEventListener("input", (event) => this.#onInput(event.target));
    this.#list.addEventListener("click", (event) => this.#onClick(event));
    this.#text.addEventListener("input", () => this.#changed());
  }

  get turns() {
    if (this.isText) return turnsOf(this.#text.value);
    return this.#items.map((item) => ({ speaker: speakerOf(item), words: wordsOf(item).value }));
  }

  set turns(turns) {
    this.#text.value = scriptOf(turns);
    this.#list.replaceChildren();
    for (const turn of turns.length ? turns : [{ speaker: 1, words: "" }]) this.#list.append(this.#made(turn));
    this.#changed();
  }

  get isText() {
    return !this.#text.hidden;
  }

  set isText(isText) {
    const { turns } = this;
    this.#text.hidden = !isText;
    this.#list.hidden = isText;
    this.turns = turns;
  }

  /** A new turn at the end, of the speaker whose turn it is. */
  append() {
    this.#insertAfter(this.#items.at(-1));
  }

  get #items() {
    return [...this.#list.children];
  }

  #made({ speaker, words }) {
    const item = this.#template.content.cloneNode(true).firstElementChild;
    const select = item.querySelector(".speaker");
    for (let k = 1; k <= MAX_SPEAKERS; k++) select.add(new Option(`S${k}`, String(k)));
    select.value = String(speaker);
    wordsOf(item).value = words;
    return item;
  }

  #insertAfter(item) {
    const speaker = this.#nextSpeaker(item);
    const made = this.#made({ speaker, words: "" });
    item.after(made);
    this.#changed();
    wordsOf(made).focus();
  }

  /** Whoever spoke before this turn's speaker did; S2 answers S1. */
  #nextSpeaker(item) {
    const now = speakerOf(item);
    let earlier = item;
    while (earlier && speakerOf(earlier) === now) earlier = earlier.previousElementSibling;
    return earlier ? speakerOf(earlier) : now === 1 ? 2 : 1;
  }

  #remove(item) {
    if (this.#items.length === 1) return;
    const next = item.previousElementSibling ?? item.nextElementSibling;
    item.remove();
    this.#changed();
    wordsOf(next).focus();
  }

  #move(item, by) {
    const other = by < 0 ? item.previousElementSibling : item.nextElementSibling;
    if (!other) return;
    const focused = document.activeElement;
    if (by < 0) other.before(item);
    else other.after(item);
    this.#changed();
    focused.focus();
    const place = this.#items.indexOf(item) + 1;
    this.dispatchEvent(new CustomEvent("say", { detail: `Now turn ${place} of ${this.#items.length}.` }));
  }

  #onInput(field) {
    const item = field.closest("li");
    if (field.matches(".words") && hasTag(field.value)) {
      const turns = turnsOf(field.value, speakerOf(item));
      const made = turns.map((turn) => this.#made(turn));
      item.replaceWith(...made);
      wordsOf(made.at(-1)).focus();
    }
    this.#changed();
  }

  #onClick({ target }) {
    const item = target.closest("li");
    if (target.matches(".up")) this.#move(item, -1);
    else if (target.matches(".down")) this.#move(item, 1);
    else if (target.matches(".remove")) this.#remove(item);
  }

  #onKey(event) {
    const { key, code, target } = event;
    const item = target.closest("li");
    if (event.isComposing || event.ctrlKey || event.metaKey) return;
    const digit = Number(/^Digit([1-5])$/.exec(code)?.[1]);
    const isWords = target.matches(".words");
    if (event.altKey && digit) {
      item.querySelector(".speaker").value = String(digit);
      this.#changed();
    } else if (event.altKey && (key === "ArrowUp" || key === "ArrowDown")) this.#move(item, key === "ArrowUp" ? -1 : 1);
    else if (isWords && key === "Enter" && !event.shiftKey) this.#insertAfter(item);
    else if (isWords && key === "Backspace" && !target.value) this.#remove(item);
    else if (isWords && key === "ArrowUp" && target.selectionEnd === 0) this.#focus(item.previousElementSibling);
    else if (isWords && key === "ArrowDown" && target.selectionStart === target.value.length)
      this.#focus(item.nextElementSibling);
    else return;
    event.preventDefault();
  }

  #focus(item) {
    if (item) wordsOf(item).focus();
  }

  #changed() {
    const items = this.#items;
    items.forEach((item, i) => {
      const [place, speaker] = [`turn ${i + 1}`, speakerOf(item)];
      item.dataset.speaker = String(speaker);
      item.querySelector(".speaker").setAttribute("aria-label", `Speaker of ${place}`);
      wordsOf(item).setAttribute("aria-label", `Words of ${place}, speaker ${speaker}`);
      wordsOf(item).placeholder = items.length === 1 ? "Write here, or paste a script with [S1] and [S2]" : "";
      item.querySelector(".up").setAttribute("aria-label", `Move ${place} up`);
      item.querySelector(".down").setAttribute("aria-label", `Move ${place} down`);
      item.querySelector(".remove").setAttribute("aria-label", `Remove ${place}`);
      item.querySelector(".up").disabled = i === 0;
      item.querySelector(".down").disabled = i === items.length - 1;
      item.querySelector(".remove").disabled = items.length === 1;
      if (!GROWS_BY_ITSELF) {
        wordsOf(item).style.height = "auto";
        wordsOf(item).style.height = `${wordsOf(item).scrollHeight}px`;
      }
    });
    this.dispatchEvent(new Event("change"));
  }
}

const wordsOf = (item) => item.querySelector(".words");
const speakerOf = (item) => Number(item.querySelector(".speaker").value);
