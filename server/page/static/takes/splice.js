/**
 * Takes put together from parts of others. A base is `{turns, times, recording, isEstimate}`: what was spoken, when,
 * and its samples without pauses.
 */

import { Recording } from "../speech/recording.js";
import { cutBefore, shifted, timesOf } from "../speech/turn_times.js";

export const baseOf = ({ turns, times, isEstimate }, recording) => ({ turns, times, recording, isEstimate });

/** The sample at which a base is cut in front of its turn `i`. */
export function sampleBefore({ times, recording }, i) {
  return Math.round(cutBefore(times, i, recording) * recording.sampleRate);
}

/** Whether a turn of a base says what one of a script does, and to its end. */
export const isSpokenAs = (known, turn) =>
  known.speaker === turn.speaker && known.words.trim() === turn.words.trim() && !known.isCut;

/** How a base differs from a script: which of its turns are spoken as they are written, and which are to be spoken. */
export function changesOf(base, turns) {
  const spoken = new Map(base.turns.map((turn) => [turn.id, turn]));
  const isSame = (turn) => {
    const known = spoken.get(turn.id);
    return known && isSpokenAs(known, turn);
  };
  const kept = turns.filter(isSame);
  const order = base.turns.filter(({ id }) => kept.some((turn) => turn.id === id));
  const isMoved = order.some(({ id }, i) => id !== kept[i].id);
  return { kept, isSame, nNew: turns.length - kept.length, isCut: isMoved || kept.length < base.turns.length };
}

/** A base of only these turns of it, in this order. */
export function rearranged(base, turns) {
  const recording = new Recording(base.recording.sampleRate);
  const times = turns.map(({ id }) => {
    const i = base.turns.findIndex((turn) => turn.id === id);
    const [from, to] = [sampleBefore(base, i), sampleBefore(base, i + 1)];
    const isNext =
      recording.length > 0 && turns[turns.findIndex((turn) => turn.id === id) - 1].id === base.turns[i - 1]?.id;
    if (isNext) recording.add(base.recording.slice(from, to));
    else recording.join(base.recording.slice(from, to));
    return shifted(base.times[i], (recording.length - to) / recording.sampleRate);
  });
  return { turns, times, recording, isEstimate: base.isEstimate };
}

/** Turns with those of a script that they lack, each behind the one that it follows there. */
export function withLacking(turns, script) {
  const all = [...turns];
  script.forEach((turn, i) => {
    if (all.some(({ id }) => id === turn.id)) return;
    all.splice(all.findIndex(({ id }) => id === script[i - 1]?.id) + 1, 0, turn);
  });
  return all;
}

/**
 * A base with turns in the place of its turns `k` to `rest` - 1.
 *
 * @param {object} result of a speech of them, see `Speech.begin`
 */
export function spliced(base, k, rest, turns, result) {
  const { recording, end } = result;
  const spoken = timesOf(turns, result);
  const shift = (end - sampleBefore(base, rest)) / recording.sampleRate;
  return {
    turns: [...base.turns.slice(0, k), ...spoken.turns, ...base.turns.slice(rest)],
    times: [...base.times.slice(0, k), ...spoken.times, ...base.times.slice(rest).map((time) => shifted(time, shift))],
    recording,
    isEstimate: base.isEstimate || spoken.isEstimate,
  };
}
