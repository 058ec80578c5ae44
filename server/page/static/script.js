/** Scripts: `[S1] ... [S2] ...` and the turns they consist of. A turn is `{speaker, words}`. */

export const MAX_SPEAKERS = 5;

export const EXAMPLE = [
  { speaker: 1, words: "Did you hear that?" },
  { speaker: 2, words: "No. What was it?" },
  { speaker: 1, words: "Somebody is reading our script aloud, and they sound exactly like us." },
  { speaker: 2, words: "Then let us write something nice." },
];

const TAG = /\[S([1-5])\]/;
const WIDE = /[\u1100-\u115f\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uff60\u{20000}-\u{3ffff}]/gu;

// The server's rule of thumb for the length of a turn.
const TURN_SECONDS = 0.3;
const WIDE_PER_SECOND = 4;
const LETTERS_PER_SECOND = 13;

/** Turns of a script; words in front of the first tag are `speaker`'s. Other tags stay, for the server to refuse. */
export function turnsOf(script, speaker = 1) {
  const [first, ...rest] = script.split(TAG);
  const turns = first.trim() ? [{ speaker, words: first.trim() }] : [];
  for (let i = 0; i < rest.length; i += 2) turns.push({ speaker: Number(rest[i]), words: rest[i + 1].trim() });
  return turns;
}

export const hasTag = (words) => TAG.test(words);

/** One turn a line; turns without words are left out. */
export function scriptOf(turns) {
  return turns
    .filter((turn) => turn.words.trim())
    .map((turn) => `[S${turn.speaker}] ${turn.words.trim()}`)
    .join("\n");
}

/** Numbers of the speakers who say something, ascending. */
export function speakersOf(turns) {
  return [...new Set(turns.filter((turn) => turn.words.trim()).map((turn) => turn.speaker))].sort();
}

/** How long it takes to speak, about. */
export function estimatedSeconds(turns) {
  let seconds = 0;
  for (const { words } of turns) {
    const text = words.trim();
    const wide = text.match(WIDE)?.length ?? 0;
    if (text) seconds += TURN_SECONDS + wide / WIDE_PER_SECOND + ([...text].length - wide) / LETTERS_PER_SECOND;
  }
  return seconds;
}

/** What a saved value holds of turns, or null. */
export function savedTurns(value) {
  const isTurn = (turn) => typeof turn?.words === "string" && turn.speaker >= 1 && turn.speaker <= MAX_SPEAKERS;
  return Array.isArray(value) && value.length && value.every(isTurn) ? value : null;
}
