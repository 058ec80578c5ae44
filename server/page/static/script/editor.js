/** The script as a list of turns, each with its speaker, or as one text with tags: a view of the project. */

import { find } from "../common/dom.js";
import { onLanguage, t } from "../common/i18n.js";
import { say } from "../common/notices.js";
import { letDrag } from "./drag.js";
import { readDialogue } from "./parse.js";
import { fillRow, makeRow, wordsOf } from "./row.js";
import { hasTag, newTurn, nextSpeaker, plainText, scriptOf, turnsOf, withKnownIds } from "./turns.js";

/** Events: "hear", "again" and "more" about a turn, whose id is the detail; "unreadable" with an error. */
export class Editor extends EventTarget {
  #project;
  #list = find("turns");
  #text = find("text");
  #heard = () => () => null; // gives what tells it by turn, see `fillRow`
  #entries;
  #isPlain = false;

  /** @param {(id: string) => object[]} entries of a turn's menu */
  constructor(project, entries) {
    super();
    this.#project = project;
    this.#entries = entries;
    project.addEventListener("change", () => this.show());
    onLanguage(() => this.show());
    this.#list.addEventListener("keydown", (event) => this.#onKey(event));
    this.#list.addEventListener("input", ({ target }) => this.#onInput(target));
    this.#list.addEventListener("paste", (event) => this.#onPaste(event));
    this.#list.addEventListener("click", ({ target }) => this.#onClick(target.closest("button")));
    this.#text.addEventListener("input", () => {
      project.change({ turns: withKnownIds(this.#turnsOfText(), project.turns) }, "text");
    });
    this.#text.addEventListener("paste", (event) => this.#onPasteOfText(event));
    letDrag(this.#list, (ids) => {
      const byId = new Map(project.turns.map((turn) => [turn.id, turn]));
      if (ids.every((id) => byId.has(id))) project.change({ turns: ids.map((id) => byId.get(id)) });
      else this.show(); // others have come meanwhile
    });
    this.show();
  }

  get isText() {
    return !this.#text.hidden;
  }

  set isText(isText) {
    this.#text.hidden = !isText;
    this.#list.hidden = isText;
    this.#text.value = this.#textOf(this.#project.turns);
    this.show();
  }

  /** Whether there is one text without speakers, and nothing else. */
  set isPlain(isPlain) {
    this.#isPlain = isPlain;
    this.isText = isPlain;
  }

  /** Say how to tell which turns the loaded take has. */
  set heard(heard) {
    this.#heard = heard;
    this.show();
  }

  /** Mark the turn that is heard now; null: none is. */
  light(id) {
    for (const row of this.#list.querySelectorAll(".playing"))
      if (row.dataset.id !== id) row.classList.remove("playing");
    const row = id && this.#row(id);
    if (!row || row.classList.contains("playing")) return;
    row.classList.add("playing");
    const isWriting = this.#list.contains(document.activeElement);
    if (!isWriting && !this.isText) row.scrollIntoView({ block: "nearest" });
  }

  /** A new turn behind another, of the speaker whose turn it is. */
  insertAfter(id = this.#project.turns.at(-1).id) {
    const { turns } = this.#project;
    const i = turns.findIndex((turn) => turn.id === id);
    const turn = newTurn(nextSpeaker(turns, i));
    this.#project.change({ turns: turns.toSpliced(i + 1, 0, turn) });
    this.focus(turn.id);
  }

  remove(id) {
    const { turns } = this.#project;
    if (turns.length === 1) return;
    const i = turns.findIndex((turn) => turn.id === id);
    this.#project.change({ turns: turns.toSpliced(i, 1) });
    this.focus(this.#project.turns[Math.max(0, i - 1)].id);
  }

  move(id, by) {
    const { turns } = this.#project;
    const i = turns.findIndex((turn) => turn.id === id);
    const to = i + by;
    if (to < 0 || to >= turns.length) return;
    const focused = document.activeElement;
    this.#project.change({ turns: turns.toSpliced(i, 1).toSpliced(to, 0, turns[i]) });
    if (this.#list.contains(focused)) focused.focus();
    say(t("turn.moved", { i: to + 1, n: turns.length }));
  }

  focus(id) {
    const row = this.#row(id);
    if (row) wordsOf(row).focus();
  }

  /** Show the project as it is now, and leave alone what is right already. */
  show() {
    const { turns, names } = this.#project.state;
    if (this.isText) {
      if (this.#textOf(turns) !== this.#textOf(this.#turnsOfText())) this.#text.value = this.#textOf(turns);
      return;
    }
    const rows = new Map([...this.#list.children].map((row) => [row.dataset.id, row]));
    const { activeElement } = document;
    const heard = this.#heard();
    turns.forEach((turn, i) => {
      const row = rows.get(turn.id) ?? makeRow(turn.id, () => this.#entries(turn.id));
      rows.delete(turn.id);
      if (this.#list.children[i] !== row) this.#list.insertBefore(row, this.#list.children[i] ?? null);
      fillRow(row, turn, { i, n: turns.length, names, heard: heard(turn) });
    });
    for (const row of rows.values()) row.remove();
    if (activeElement !== document.activeElement && this.#list.contains(activeElement)) activeElement.focus();
  }

  #row(id) {
    return [...this.#list.children].find((row) => row.dataset.id === id);
  }

  #textOf(turns) {
    return this.#isPlain ? plainText(turns) : scriptOf(turns);
  }

  #turnsOfText() {
    if (this.#isPlain) return [newTurn(1, this.#text.value)];
    const turns = turnsOf(this.#text.value);
    return turns.length ? turns : [newTurn(1)];
  }

  #onInput(field) {
    const { id } = field.closest("li").dataset;
    if (field.matches(".speaker")) this.#project.changeTurn(id, { speaker: Number(field.value) });
    else if (hasTag(field.value)) this.#replace(id, turnsOf(field.value, this.#turn(id).speaker));
    else this.#project.changeTurn(id, { words: field.value }, `words of ${id}`);
  }

  /** What is pasted and is a dialogue becomes turns. */
  #onPaste(event) {
    const { target: field } = event;
    const found = field.matches(".words") ? this.#pastedIn(event) : null;
    if (!found) return;
    const { id } = field.closest("li").dataset;
    this.#replace(id, field.value.trim() ? [this.#turn(id), ...found.turns] : found.turns, found.names);
  }

  /** The same where the script is one text: there they stand with their tags. */
  #onPasteOfText(event) {
    const found = this.#isPlain ? null : this.#pastedIn(event);
    if (!found) return;
    const { value, selectionStart: from, selectionEnd: to } = this.#text;
    const [before, after] = [value.slice(0, from).trimEnd(), value.slice(to).trimStart()];
    const text = [before, scriptOf(found.turns), after].filter(Boolean).join("\n");
    this.#text.value = text;
    this.#text.selectionStart = this.#text.selectionEnd = text.length - after.length;
    this.#project.change({ turns: withKnownIds(this.#turnsOfText(), this.#project.turns), names: found.names });
  }

  /** The pasted dialogue without tags, which then does not paste itself; null: there is none, or an unreadable one. */
  #pastedIn(event) {
    const text = event.clipboardData?.getData("text") ?? "";
    if (!/\n/.test(text.trim()) || hasTag(text)) return null;
    try {
      const found = readDialogue(text, this.#project.state.names);
      if (found) event.preventDefault();
      return found;
    } catch (error) {
      event.preventDefault();
      this.dispatchEvent(new CustomEvent("unreadable", { detail: error }));
      return null;
    }
  }

  #turn(id) {
    return this.#project.turns.find((turn) => turn.id === id);
  }

  #replace(id, turns, names = this.#project.state.names) {
    const i = this.#project.turns.findIndex((turn) => turn.id === id);
    this.#project.change({ turns: this.#project.turns.toSpliced(i, 1, ...turns), names });
    this.focus(turns.at(-1).id);
  }

  #onClick(button) {
    const id = button?.closest("li").dataset.id;
    if (!button) return;
    if (button.matches(".remove")) this.remove(id);
    else if (button.matches(".pause")) this.#project.changeTurn(id, { pause: 0 });
    else if (button.matches(".hear, .again")) {
      this.dispatchEvent(new CustomEvent(button.matches(".hear") ? "hear" : "again", { detail: id }));
    }
  }

  #onKey(event) {
    const { key, code, target } = event;
    const row = target.closest("li");
    if (event.isComposing || event.ctrlKey || event.metaKey) return;
    const { id } = row.dataset;
    const digit = Number(/^Digit([1-5])$/.exec(code)?.[1]);
    const isWords = target.matches(".words");
    if (event.altKey && digit) this.#project.changeTurn(id, { speaker: digit });
    else if (event.altKey && (key === "ArrowUp" || key === "ArrowDown")) this.move(id, key === "ArrowUp" ? -1 : 1);
    else if (isWords && key === "Enter" && !event.shiftKey) this.insertAfter(id);
    else if (isWords && key === "Backspace" && !target.value) this.remove(id);
    else if (isWords && key === "ArrowUp" && target.selectionEnd === 0) this.#go(row.previousElementSibling);
    else if (isWords && key === "ArrowDown" && target.selectionStart === target.value.length)
      this.#go(row.nextElementSibling);
    else return;
    event.preventDefault();
  }

  #go(row) {
    if (row) wordsOf(row).focus();
  }
}
