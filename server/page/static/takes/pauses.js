/** Silence between turns that were spoken without it: put in when a take is heard or saved, so it can be changed. */

import { Recording, fadedIn } from "../speech/recording.js";
import { cutBefore } from "../speech/turn_times.js";

/**
 * @param {Recording} raw as it was spoken
 * @param {{pause: number}[]} turns that were spoken
 * @param {{start: number, end: number}[]} times of the turns in `raw`, in seconds
 * @returns {{recording: Recording, times: {start: number, end: number}[]}} with each turn's pause behind it, but
 *   for the last one's
 */
export function withPauses(raw, turns, times) {
  if (!turns.slice(0, -1).some((turn) => turn.pause > 0)) return { recording: raw, times };
  const recording = new Recording(raw.sampleRate);
  const shifted = [];
  const at = (i) => Math.round(cutBefore(times, i, raw) * raw.sampleRate);
  let shift = 0; // seconds that were put in so far
  turns.forEach((turn, i) => {
    const isLast = i === turns.length - 1;
    const pcm = raw.slice(at(i), isLast ? raw.length : at(i + 1));
    recording.add(shift && turns[i - 1].pause ? fadedIn(pcm, raw.sampleRate) : pcm);
    shifted.push({ start: times[i].start + shift, end: times[i].end + shift });
    if (isLast || !turn.pause) return;
    recording.addSilence(turn.pause);
    shift += turn.pause;
  });
  return { recording, times: shifted };
}
