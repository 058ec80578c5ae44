/** Turns, of which a script consists: `{id, speaker, words, pause}`; `pause` are seconds of silence after it. */

import { newId } from "../common/dom.js";

export const MAX_SPEAKERS = 5;
export const MAX_PAUSE = 10; // seconds

const TAG = /\[S([1-5])\]/;
const WIDE = /[\u1100-\u115f\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uff60\u{20000}-\u{3ffff}]/gu;

// The server's rule of thumb for the length of a turn.
const TURN_SECONDS = 0.3;
const WIDE_PER_SECOND = 4;
const LETTERS_PER_SECOND = 13;

/** A turn with an id of its own. */
export function newTurn(speaker, words = "", pause = 0) {
  return Object.freeze({ id: newId(), speaker, words, pause });
}

/** Turns of a script with tags; words in front of the first are `speaker`'s. The server refuses other tags. */
export function turnsOf(script, speaker = 1) {
  const [first, ...rest] = script.split(TAG);
  const turns = first.trim() ? [newTurn(speaker, first.trim())] : [];
  for (let i = 0; i < rest.length; i += 2) turns.push(newTurn(Number(rest[i]), rest[i + 1].trim()));
  return turns;
}

export const hasTag = (words) => TAG.test(words);
export const isSpoken = (turn) => /[\p{L}\p{N}]/u.test(turn.words);

/** One turn a line, with tags; turns without words are left out. */
export function scriptOf(turns) {
  return turns
    .filter((turn) => turn.words.trim())
    .map((turn) => `[S${turn.speaker}] ${turn.words.trim()}`)
    .join("\n");
}

/** All words without tags, for a model that knows no turns; a turn is a line. */
export const plainText = (turns) => turns.map(({ words }) => words).join("\n");

/** The same as one turn, which keeps the first one's id. */
export const asOne = (turns) => Object.freeze({ ...turns[0], speaker: 1, words: plainText(turns), pause: 0 });

/** Numbers of the speakers who say something, ascending. */
export function speakersOf(turns) {
  return [...new Set(turns.filter((turn) => turn.words.trim()).map((turn) => turn.speaker))].sort();
}

/** How long it takes to speak, about, without pauses. */
export function estimatedSeconds(turns) {
  return turns.reduce((sum, turn) => sum + secondsOf(turn.words), 0);
}

function secondsOf(words) {
  const text = words.trim();
  const wide = text.match(WIDE)?.length ?? 0;
  return text ? TURN_SECONDS + wide / WIDE_PER_SECOND + ([...text].length - wide) / LETTERS_PER_SECOND : 0;
}

/** Whoever speaks next after `turns[i]`: who spoke before this turn's speaker did; S2 answers S1. */
export function nextSpeaker(turns, i) {
  const now = turns[i]?.speaker ?? 2;
  for (let k = i; k >= 0; k--) if (turns[k].speaker !== now) return turns[k].speaker;
  return now === 1 ? 2 : 1;
}

/** `turns` with the ids and pauses of those of `known` that they are: of the same words, or at the same place. */
export function withKnownIds(turns, known) {
  const waiting = new Map();
  for (const turn of known) {
    const key = `${turn.speaker} ${turn.words.trim()}`;
    waiting.set(key, [...(waiting.get(key) ?? []), turn]);
  }
  const taken = new Set();
  const found = turns.map((turn) => {
    const same = waiting.get(`${turn.speaker} ${turn.words.trim()}`)?.shift();
    if (same) taken.add(same.id);
    return same ?? turn;
  });
  if (turns.length !== known.length) return found;
  return found.map((turn, i) => {
    const before = known[i];
    const isChanged = found[i] === turns[i] && !taken.has(before.id);
    return isChanged ? Object.freeze({ ...turn, id: before.id, pause: before.pause }) : turn;
  });
}

/** What a value from elsewhere holds of turns, or null. */
export function readTurns(value) {
  const isTurn = (turn) => typeof turn?.words === "string" && [1, 2, 3, 4, 5].includes(turn.speaker);
  if (!Array.isArray(value) || !value.length || !value.every(isTurn)) return null;
  const ids = new Set();
  return value.map(({ id, speaker, words, pause }) => {
    const isOwn = typeof id === "string" && /^\w{1,32}$/.test(id) && !ids.has(id);
    const seconds = Number.isFinite(pause) ? Math.min(MAX_PAUSE, Math.max(0, pause)) : 0;
    const turn = { ...newTurn(speaker, words, seconds), ...(isOwn && { id }) };
    ids.add(turn.id);
    return Object.freeze(turn);
  });
}
