/** What may be wrong with a clip, before it is stored: said, and left to whoever stores it. */

import { clock } from "../common/dom.js";
import { t } from "../common/i18n.js";
import { samplesOfFile } from "../speech/wav.js";

export const AUDIO_FILES = ".wav,.flac,.ogg,.oga,.opus,.mp3,.m4a,.mp4,.aac,.webm";

const SAMPLE_RATE = 24000;
const SHORT_SECONDS = 5;
const LONG_SECONDS = 30;
const SILENCE = 0.001; // -60 dBFS, of full scale
const QUIET = 0.05; // peak
const FULL = 0.997;
const CLIPPED_SHARE = 0.0005; // of samples at full scale
const FRAME_SECONDS = 0.02;
const NOISE_DB = 22; // between what is loud and what is quiet in it; speech in a quiet room has 40 and more
const PAUSE_SHARE = 0.6; // of frames that are silent

/**
 * Listen to a clip.
 *
 * @param {Blob} clip
 * @param {number} longest seconds of a clip, which the server takes
 * @returns {Promise<{seconds: number?, findings: string[]}>} `seconds` is null where the browser cannot read it, which
 *   the server may
 */
export async function checkClip(clip, longest) {
  let pcm;
  try {
    pcm = await samplesOfFile(clip, SAMPLE_RATE);
  } catch {
    return { seconds: null, findings: [t("clip.unreadable")] };
  }
  const seconds = pcm.length / SAMPLE_RATE;
  return { seconds, findings: findingsOf(measured(pcm), seconds, longest).map(([key, values]) => t(key, values)) };
}

/** @returns {{peak: number, clipped: number, range: number, silent: number}} `range` in dB, shares of all frames */
function measured(pcm) {
  let [peak, full] = [0, 0];
  const size = FRAME_SECONDS * SAMPLE_RATE;
  const levels = [];
  for (let start = 0; start + size <= pcm.length; start += size) {
    let power = 0;
    for (let i = start; i < start + size; i++) {
      const value = Math.abs(pcm[i]) / 32768;
      peak = Math.max(peak, value);
      full += value >= FULL;
      power += value * value;
    }
    levels.push(Math.sqrt(power / size));
  }
  levels.sort((a, b) => a - b);
  const at = (share) => levels[Math.floor(share * (levels.length - 1))] ?? 0;
  return {
    peak,
    clipped: full / (pcm.length || 1),
    range: 20 * Math.log10((at(0.9) + 1e-9) / (at(0.1) + 1e-9)),
    silent: levels.filter((level) => level < SILENCE * 2).length / (levels.length || 1),
  };
}

function findingsOf({ peak, clipped, range, silent }, seconds, longest) {
  if (peak < SILENCE) return [["clip.silent", {}]];
  const findings = [];
  if (seconds > longest) findings.push(["clip.tooLong", { length: clock(seconds), longest }]);
  else if (seconds > LONG_SECONDS) findings.push(["clip.long", { length: clock(seconds) }]);
  if (seconds < SHORT_SECONDS) findings.push(["clip.short", { length: seconds.toFixed(1) }]);
  if (peak < QUIET) findings.push(["clip.quiet", {}]);
  if (clipped > CLIPPED_SHARE) findings.push(["clip.clipped", {}]);
  if (silent > PAUSE_SHARE) findings.push(["clip.pauses", {}]);
  else if (range < NOISE_DB) findings.push(["clip.noisy", {}]);
  return findings;
}
