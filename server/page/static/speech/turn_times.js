/**
 * When each turn of a speech is heard.
 *
 * The server says so with its end. Where it does not, and until then, the length is shared out by how long the words take
 * to say, and each border is moved to the quietest moment near it: a guess, and shown as one.
 */

import { PEAKS_PER_SECOND } from "./recording.js";
import { estimatedSeconds } from "../script/turns.js";

const REACH_SECONDS = 0.8; // how far a border may be moved
const QUIET_PEAKS = 5; // that are added up where it is looked for
const REST_SECONDS = 0.25; // of silence behind a turn that came to its end

/**
 * @param {object[]} turns that were asked for
 * @param {object} result of `Speech.begin`, of which something was heard
 * @returns {{turns: object[], times: {start: number, end: number}[], isEstimate: boolean}} in seconds of its recording,
 *   one for each turn. Of a speech that has not come to its end, those that were reached; the last of them
 *   `isCut`, unless all are told and silence follows.
 */
export function timesOf(turns, { recording, start, end, finishReason, turns: given }) {
  const [from, to] = [start / recording.sampleRate, end / recording.sampleRate];
  const isWhole = finishReason === "stop";
  const told = matched(turns, given, to - from, isWhole);
  const length = isWhole ? to - from : Math.max(to - from, estimatedSeconds(turns));
  const all = told?.map((time) => shifted(time, from)) ?? estimatedTimes(turns, length, recording, from);
  const times = all.filter((time, i) => !i || time.start < to).map((time) => ({ ...time, end: Math.min(time.end, to) }));
  const reached = turns.slice(0, times.length);
  // A script in parts goes on behind a part that was cut: then its last turn may be whole.
  const isAllSaid = told?.length === turns.length && told.at(-1).end + REST_SECONDS < to - from;
  if (!isWhole && !(finishReason === "length" && isAllSaid)) reached.push({ ...reached.pop(), isCut: true });
  return { turns: reached, times, isEstimate: !told && turns.length > 1 };
}

export const shifted = ({ start, end }, by) => ({ start: start + by, end: end + by });

/** Times by the words alone, from `start` on; moved to where `recording` is quiet, as far as there is one. */
export function estimatedTimes(turns, seconds, recording = null, start = 0) {
  const lengths = turns.map((turn) => estimatedSeconds([turn]));
  const total = lengths.reduce((sum, length) => sum + length, 0) || 1;
  const borders = [0];
  for (const length of lengths) borders.push(borders.at(-1) + (length / total) * seconds);
  for (let i = 1; recording && i < turns.length; i++) {
    const reach = Math.min(REACH_SECONDS, (borders[i] - borders[i - 1]) / 2, (borders[i + 1] - borders[i]) / 2);
    const at = start + borders[i];
    if (at + reach > recording.seconds) break; // it is still to come
    borders[i] = quietest(recording.peaks, at - reach, at + reach) - start;
  }
  return turns.map((_, i) => ({ start: start + borders[i], end: start + borders[i + 1] }));
}

/** The middle of the quietest tenth of a second between two moments. */
export function quietest(peaks, from, to) {
  const [first, last] = [Math.max(0, Math.floor(from * PEAKS_PER_SECOND)), Math.ceil(to * PEAKS_PER_SECOND)];
  const middle = (first + last - QUIET_PEAKS) / 2;
  let [best, found] = [Infinity, middle];
  for (let i = first; i + QUIET_PEAKS <= Math.min(last, peaks.length); i++) {
    let loud = 0;
    for (let k = 0; k < QUIET_PEAKS; k++) loud += peaks[i + k];
    const isNearer = Math.abs(i - middle) < Math.abs(found - middle);
    if (loud < best || (loud === best && isNearer)) [best, found] = [loud, i];
  }
  return (found + QUIET_PEAKS / 2) / PEAKS_PER_SECOND;
}

/** Where a speech may be cut in front of `times[i]`, in seconds: between two turns, where it is quiet. */
export function cutBefore(times, i, recording) {
  if (i <= 0) return 0;
  if (i >= times.length) return recording.seconds;
  const [end, start] = [times[i - 1].end, times[i].start];
  return start - end > 2 / PEAKS_PER_SECOND ? quietest(recording.peaks, end, start) : (start + end) / 2;
}

/** The server's times for our turns, or for the first of them; null: they are not those of these turns. */
function matched(turns, given, seconds, isWhole) {
  const isTime = (time) =>
    [time?.start, time?.end].every(Number.isFinite) &&
    time.start >= 0 &&
    time.end >= time.start &&
    time.start <= seconds + 0.5;
  if (!Array.isArray(given) || !given.length || !given.every(isTime)) return null;
  const times = given.map(({ start, end }) => ({ start: Math.min(start, seconds), end: Math.min(end, seconds) }));
  const isOurs = (ours) => {
    const isLong = isWhole ? ours.length === given.length : ours.length >= given.length;
    return isLong && given.every(({ speaker }, i) => speaker === `S${ours[i].speaker}`);
  };
  if (isOurs(turns)) return times;
  const runs = []; // neighbours of one speaker, which the server may read as one turn
  for (const turn of turns) {
    if (runs.at(-1)?.[0].speaker === turn.speaker) runs.at(-1).push(turn);
    else runs.push([turn]);
  }
  if (!isOurs(runs.map(([turn]) => turn))) return null;
  return times.flatMap(({ start, end }, i) => estimatedTimes(runs[i], end - start, null, start));
}
