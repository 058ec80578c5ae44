/**
 * Some turns of a take, spoken anew after what comes before them.
 *
 * The speech API knows voices by speaker and nothing that was said before. `/generate` continues any clip whose words
 * stand in front of the text, which is how the server itself joins the parts of a long script; so this is asked there.
 *
 *     voices of the cast, whose words are known     as the take had them
 *     a turn of each speaker who has no voice       where the earlier part has none: else the voice would be a new one
 *     the earlier part, its last half minute        what is continued
 */

import { scriptOf } from "../script/turns.js";
import { fetchClip } from "../voices/voice_api.js";
import { cutBefore } from "./turn_times.js";
import { base64Of, wavFile } from "./wav.js";

const EARLIER_SECONDS = 30;
const CLIP_SHARE = 0.9; // of the longest clip that the server takes
const MAX_CLIPS = 5;
const FRAMES_PER_SECOND = 12.5;
const LONGEST = { factor: 3, more: 10 }; // times the expected length and seconds more, at which the server itself cuts
const CLONING_ONLY = ["generation", "voice_clone"];

/**
 * What to send to `/generate`.
 *
 * @param {object} take `{turns, times}` and its `recording`, before pauses
 * @param {number} k turn that is the first to be spoken anew
 * @param {object[]} turns to be spoken
 * @param {object} fields of the speech API: `seed`, settings
 * @param {{speaker: number, name: string, text: string?}[]} cast stored voices of the speakers, by number
 * @param {number} expectedSeconds
 * @param {number} longestClip seconds that the server takes
 * @returns {Promise<object?>} null: the voices cannot be continued, so that the speech API has all there is to say
 */
export async function continuing(take, k, turns, fields, cast, expectedSeconds, longestClip) {
  if (CLONING_ONLY.includes(fields.mode) || cast.some(({ text }) => !text)) return null;
  const clips = [];
  for (const { speaker, name, text } of cast) {
    clips.push({ audio: await base64Of(await fetchClip(name)), words: `[S${speaker}] ${text}` });
  }
  const longest = CLIP_SHARE * longestClip;
  const heard = earlierPart(take, k, longest);
  const known = new Set([...cast.map(({ speaker }) => speaker), ...speakersIn(take, heard)]);
  const others = [...new Set(turns.map(({ speaker }) => speaker))].filter((speaker) => !known.has(speaker));
  const parts = others.map((speaker) => turnOf(take, speaker, longest)).filter((part) => part !== null);
  if (heard.first < heard.last) parts.push(heard);
  for (const part of parts.slice(0, MAX_CLIPS - clips.length)) clips.push(await clipOf(take, part));
  if (!clips.length) return null;
  return {
    text: directives(fields) + said([...clips.map(({ words }) => words), scriptOf(turns)].join("\n"), fields),
    audio_data: clips.map(({ audio }) => audio),
    sampling_params: settingsOf(fields, expectedSeconds),
  };
}

/** Turns `first` to `last` - 1 of the take in front of turn `k`: the last ones, as many as are continued. */
function earlierPart({ turns, times, recording }, k, longest) {
  const end = cutBefore(times, k, recording);
  let first = k;
  while (first > 0) {
    const seconds = end - cutBefore(times, first - 1, recording);
    if (seconds > (first === k ? longest : Math.min(EARLIER_SECONDS, longest))) break;
    first -= 1;
  }
  return { first, last: Math.min(k, turns.length) };
}

const speakersIn = ({ turns }, { first, last }) => turns.slice(first, last).map(({ speaker }) => speaker);

/** The longest turn of a speaker that can be a clip. */
function turnOf({ turns, times }, speaker, longest) {
  let found = null;
  turns.forEach((turn, i) => {
    const seconds = times[i].end - times[i].start;
    if (turn.speaker !== speaker || seconds > longest || seconds < 1 / FRAMES_PER_SECOND) return;
    if (found === null || seconds > times[found].end - times[found].start) found = i;
  });
  return found === null ? null : { first: found, last: found + 1 };
}

async function clipOf({ turns, times, recording }, { first, last }) {
  const [from, to] = [first, last].map((i) => Math.round(cutBefore(times, i, recording) * recording.sampleRate));
  const audio = await base64Of(wavFile(recording.slice(from, to), recording.sampleRate));
  return { audio, words: scriptOf(turns.slice(first, last)) };
}

/** What stands in front of a text, in the order that `/generate` wants. */
function directives({ normalize, instruction, ambient_sound: ambient }) {
  const line = (words) => words.trim().split(/\s+/).join(" ").replace(/\}/g, "");
  let text = normalize === false ? "" : "${normalize_text}";
  if (instruction?.trim()) text += `\${instruction:${line(instruction)}}`;
  if (ambient?.trim()) text += `\${ambient_sound:${line(ambient)}}`;
  return text;
}

/** The normaliser of `/generate` deletes hyphens and curly apostrophes; the speech API would have put them right. */
function said(words, { normalize }) {
  return normalize === false ? words : words.replace(/(?<=\p{L})[’ʼ](?=\p{L})/gu, "'").replace(/(?<=\w)-(?=\w)/g, " ");
}

function settingsOf(fields, expectedSeconds) {
  const params = { sampling_seed: fields.seed, custom_params: { mode: "continuation", strict: true } };
  for (const name of ["temperature", "top_p", "top_k", "repetition_penalty"]) {
    if (fields[name] !== undefined) params[name] = fields[name];
  }
  const seconds = fields.max_seconds ?? LONGEST.factor * expectedSeconds + LONGEST.more;
  params.max_new_tokens = Math.max(1, Math.floor(seconds * FRAMES_PER_SECOND));
  return params;
}
