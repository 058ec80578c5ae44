/** A take as a file: its sound in any format, from what was heard, or its script with the times of its turns. */

import { encode } from "../common/api.js";
import { fileName, offer } from "../common/files.js";
import { t } from "../common/i18n.js";
import { nameOf } from "../script/row.js";
import { writeSrt, writeVtt } from "../script/subtitles.js";
import { scriptOf } from "../script/turns.js";
import { withPauses } from "./pauses.js";

const SOUND = { wav: "WAV", flac: "FLAC", mp3: "MP3", opus: "Opus", m4a: "M4A (AAC)" };
const WORDS = { srt: "SRT", vtt: "WebVTT", json: "JSON", txt: "TXT" };

/**
 * Entries of a menu of formats.
 *
 * @param {(format: string) => void} save is called with the one that is chosen
 */
export function formats(save) {
  const entries = (table) => Object.entries(table).map(([format, label]) => ({ label, act: () => save(format) }));
  return [{ title: t("download.sound") }, ...entries(SOUND), { title: t("download.words") }, ...entries(WORDS)];
}

/**
 * Make a file of a take, and hand it over.
 *
 * @param {object} take
 * @param {import("../speech/recording.js").Recording} raw its samples, without pauses
 * @returns {Promise<string>} the file's name
 * @throws {ApiError} the server, which encodes what browsers cannot, refuses
 */
export async function download(take, raw, format) {
  const name = `${fileName(take.project.title || "dialogue", take.name)}.${format}`;
  const { recording, times } = withPauses(raw, take.turns, take.times);
  if (format === "wav") offer(recording.toWav(), name);
  else if (format in SOUND) offer(await encode(recording.slice(), recording.sampleRate, format), name);
  else offer(new Blob([wordsOf(take, times, format)], { type: "text/plain;charset=utf-8" }), name);
  return name;
}

function wordsOf(take, times, format) {
  const turns = take.turns.map(({ speaker, words }, i) => {
    return { speaker: `S${speaker}`, name: nameOf(speaker, take.project.names), ...times[i], words: words.trim() };
  });
  if (format === "srt") return writeSrt(turns);
  if (format === "vtt") return writeVtt(turns);
  if (format === "txt") return `${scriptOf(take.turns)}\n`;
  const rounded = (seconds) => Math.round(seconds * 1000) / 1000;
  const said = turns.map(({ speaker, name, start, end, words }) => {
    return { speaker, name, start: rounded(start), end: rounded(end), text: words };
  });
  return `${JSON.stringify({ turns: said, estimated: take.isEstimate, seed: take.seed }, null, 2)}\n`;
}
