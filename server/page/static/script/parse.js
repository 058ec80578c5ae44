/**
 * Dialogues as people write them, read as turns.
 *
 *     [S1] Hi. [S2] Ho.                       tags
 *     Alice: Hi.     **Bob:** Ho.             a name and a colon in front of each turn
 *     ALICE                                   a screenplay: a name in capitals on a line of its own,
 *     (whispering)                            what is in brackets or describes the scene is left out
 *     Hi.
 */

import { MAX_SPEAKERS, hasTag, newTurn, turnsOf } from "./turns.js";

const LABEL = /^[\s>*_-]*([\p{L}\p{N}][\p{L}\p{N}\p{M}.'’&_ -]{0,29}?)\s*[*_]*\s*[:：](?!\/\/)[*_]*\s*(?=\S)/u;
const NUMBERED = /^(?:s|spk|speaker|说话人|說話人|发言人|發言人|話者)\s*[_#-]?\s*([1-9]\d?)$/iu;
const CUE = /^(?=.*\p{Lu})[\p{Lu}\p{N}\p{M}.'’& _-]{2,38}?(?:\s*\([^)]*\))*\s*$/u;
const SCENE = /^(?:INT|EXT|EST|INT\.?\/EXT|I\/E)[. ]|^(?:FADE|CUT|DISSOLVE|SMASH CUT)\b.*|.*(?: TO:| OUT\.)$/;
const BRACKETED = /^[(（].*[)）]$/;
const MAX_NAME_WORDS = 3;

/** A dialogue has more speakers than the model knows. */
export class TooManySpeakers extends Error {
  constructor(names) {
    super(names.join(", "));
    this.names = names;
  }
}

/**
 * A script's turns and who speaks in them.
 *
 * @param {string} text
 * @param {Record<number, string>} known names by speaker; they keep their numbers
 * @returns {{turns: object[], names: Record<number, string>}?} null: it is no dialogue
 * @throws {TooManySpeakers}
 */
export function readDialogue(text, known = {}) {
  if (hasTag(text)) return { turns: turnsOf(text), names: known };
  const lines = text.split(/\r\n?|\n/).map((line) => line.trim());
  const said = labelled(lines) ?? screenplay(lines);
  return said && numbered(said, known);
}

/** Turns of any text: a dialogue, or else what one speaker says, a paragraph each. */
export function readScript(text, known = {}) {
  const found = readDialogue(text, known);
  if (found) return found;
  const paragraphs = text
    .split(/(?:\r\n?|\n)\s*(?:\r\n?|\n)/)
    .map((part) => part.trim().replace(/\s*[\r\n]+\s*/g, " "));
  return { turns: paragraphs.filter(Boolean).map((words) => newTurn(1, words)), names: known };
}

/** Give the speakers of `[{name, words}]` numbers. @throws {TooManySpeakers} */
export function numbered(said, known = {}) {
  const names = { ...known };
  const numbers = new Map(Object.entries(known).map(([speaker, name]) => [keyOf(name), Number(speaker)]));
  const order = [...new Set(said.map(({ name }) => name))];
  for (const name of order) {
    const own = Number(NUMBERED.exec(name)?.[1]);
    if (own >= 1 && own <= MAX_SPEAKERS) numbers.set(keyOf(name), own);
  }
  const taken = new Set(order.map((name) => numbers.get(keyOf(name))));
  for (const name of order) {
    if (numbers.has(keyOf(name))) continue;
    const left = [1, 2, 3, 4, 5].filter((speaker) => !taken.has(speaker));
    const free = left.find((speaker) => !names[speaker]) ?? left[0];
    if (!free) throw new TooManySpeakers(order);
    numbers.set(keyOf(name), free);
    taken.add(free);
    names[free] = name;
  }
  return { turns: said.map(({ name, words, pause }) => newTurn(numbers.get(keyOf(name)), words, pause)), names };
}

const keyOf = (name) => name.normalize("NFKC").toLowerCase();

function isName(label) {
  const words = label.split(/\s+/);
  return words.length <= MAX_NAME_WORDS && !/^\p{Ll}/u.test(label) && !/^\p{N}+$/u.test(label);
}

/** "Name: words" on the lines; a line without a name goes on with what was said. */
function labelled(lines) {
  const said = [];
  let nLabels = 0;
  for (const line of lines.filter(Boolean)) {
    const found = LABEL.exec(line);
    const name = found?.[1].trim();
    if (found && (isName(name) || NUMBERED.test(name))) {
      nLabels += 1;
      said.push({ name, words: line.slice(found[0].length) });
    } else if (said.length) said.at(-1).words += ` ${line}`;
    else if (!BRACKETED.test(line)) return null;
  }
  const names = new Set(said.map(({ name }) => name));
  const firsts = lines.filter((line, i) => line && !lines[i - 1]); // of paragraphs
  const isLabelled = (all) => all.length > 1 && all.every((line) => LABEL.test(line));
  const isDialogue = names.size < nLabels || isLabelled(lines.filter(Boolean)) || isLabelled(firsts);
  return nLabels > 1 && isDialogue ? said : null;
}

/** Names in capitals, each above what it says; other paragraphs describe, and are not spoken. */
function screenplay(lines) {
  const said = [];
  let isSaying = false;
  lines.forEach((line, i) => {
    if (!line) isSaying = false;
    else if (SCENE.test(line)) isSaying = false;
    else if (CUE.test(line) && lines[i + 1] && !CUE.test(lines[i + 1])) {
      said.push({ name: titled(line.replace(/\s*\([^)]*\)/g, "").trim()), words: "" });
      isSaying = true;
    } else if (isSaying && !BRACKETED.test(line)) {
      said.at(-1).words += (said.at(-1).words && " ") + line;
    }
  });
  const spoken = said.filter(({ words }) => words);
  return spoken.length > 1 ? spoken : null;
}

const titled = (name) => name.toLowerCase().replace(/(?<![\p{L}'’])\p{L}/gu, (letter) => letter.toUpperCase());
