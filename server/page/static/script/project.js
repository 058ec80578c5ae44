/**
 * What its user works on, `{title, turns, names, cast, settings}`, and every state that it was in: all changes go
 * through here, so all of them can be undone.
 */

import { newTurn, readTurns } from "./turns.js";

const MERGE_MS = 1500; // changes of one kind that follow each other so fast are undone together
const MAX_STATES = 500;

export class Project extends EventTarget {
  #state;
  #past = [];
  #future = [];
  #lastKind = null; // of the last change, where it may be merged with the next
  #changedAt = 0;

  /** @param {object} state as `readProject` gives it */
  constructor(state) {
    super();
    this.#state = state;
  }

  /** Never changed in place. */
  get state() {
    return this.#state;
  }

  get turns() {
    return this.#state.turns;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  /**
   * Replace some of the state.
   *
   * @param {object} patch
   * @param {string?} kind changes of the same kind that follow each other fast, such as letters, are undone together
   */
  change(patch, kind = null) {
    const now = performance.now();
    const isMerged = kind !== null && kind === this.#lastKind && now - this.#changedAt < MERGE_MS;
    if (!isMerged) this.#past.push(this.#state);
    if (this.#past.length > MAX_STATES) this.#past.shift();
    this.#future = [];
    [this.#lastKind, this.#changedAt] = [kind, now];
    this.#show({ ...this.#state, ...patch });
  }

  /** Change one turn; what changes nothing is nothing to undo. */
  changeTurn(id, patch, kind = null) {
    const now = this.turns.find((turn) => turn.id === id);
    if (Object.entries(patch).every(([name, value]) => now?.[name] === value)) return;
    this.change(
      { turns: this.turns.map((turn) => (turn.id === id ? Object.freeze({ ...turn, ...patch }) : turn)) },
      kind,
    );
  }

  /** Replace all of it, with nothing to undo. */
  begin(state) {
    [this.#past, this.#future, this.#lastKind] = [[], [], null];
    this.#show(state);
  }

  undo() {
    this.#travel(this.#past, this.#future);
  }

  redo() {
    this.#travel(this.#future, this.#past);
  }

  #travel(from, to) {
    if (!from.length) return;
    to.push(this.#state);
    this.#lastKind = null;
    this.#show(from.pop());
  }

  #show(state) {
    const before = this.#state;
    this.#state = Object.freeze(state);
    this.dispatchEvent(new CustomEvent("change", { detail: { before, state } }));
  }
}

/** What a value from elsewhere, a file or a link, holds of a project; `fallback` gives what it lacks. */
export function readProject(value, fallback = emptyProject()) {
  const from = value !== null && typeof value === "object" ? value : {};
  return Object.freeze({
    title: typeof from.title === "string" ? from.title.slice(0, 200) : fallback.title,
    turns: readTurns(from.turns) ?? fallback.turns,
    names: bySpeaker(from.names) ?? fallback.names,
    cast: bySpeaker(from.cast ?? from.voices) ?? fallback.cast,
    settings: settingsOf(from.settings) ?? fallback.settings,
  });
}

export function emptyProject() {
  return Object.freeze({ title: "", turns: [newTurn(1)], names: {}, cast: {}, settings: {} });
}

/** Texts by the number of a speaker. */
function bySpeaker(value) {
  if (value === null || typeof value !== "object") return null;
  const isOne = ([speaker, text]) => /^[1-5]$/.test(speaker) && typeof text === "string" && text;
  return Object.fromEntries(
    Object.entries(value)
      .filter(isOne)
      .map(([speaker, text]) => [speaker, text.slice(0, 200)]),
  );
}

/** Settings by their name; a form knows which of them there are. */
function settingsOf(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return null;
  const isSetting = ([, setting]) => ["string", "boolean"].includes(typeof setting) && setting !== "";
  return Object.fromEntries(Object.entries(value).filter(isSetting));
}
