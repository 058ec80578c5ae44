/** Subtitles, SRT and WebVTT: read as a script, and written from when turns were spoken. */

import { numbered } from "./parse.js";

const TIMES = /(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{1,3})\s*-->\s*(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{1,3})/;
const VOICE = /^<v(?:\.[^ >]*)?\s+([^>]+)>/;
const LABEL = /^([\p{Lu}\p{Lo}][\p{L}\p{N}\p{M}.'’ -]{0,29}?)\s*[:：]\s+(?=\S)/u;
const ENTITIES = { amp: "&", lt: "<", gt: ">", nbsp: " ", lrm: "\u200e", rlm: "\u200f" };
const SENTENCE_END = /[.!?…。！？]["'”’)\]]*$/;
const NAMELESS = ["-", "--"]; // who says what nobody's name stands at
const LEAST_PAUSE = 1; // seconds between two cues that are kept as a pause
const JOINED = 1; // seconds between two cues of one sentence, at most

export const isSubtitles = (text) => TIMES.test(text);

/**
 * The script of a subtitle file: cues of one sentence are one turn; longer gaps between cues are pauses.
 *
 * @throws {TooManySpeakers}
 */
export function readSubtitles(text) {
  const cues = text
    .replace(/\r\n?/g, "\n")
    .split(/\n{2,}/)
    .flatMap(cueOf);
  const said = [];
  for (const { start, end, lines } of cues) {
    for (const line of lines) {
      const last = said.at(-1);
      const name = line.name ?? last?.name ?? NAMELESS[0];
      if (last) last.pause = start - last.end >= LEAST_PAUSE ? Math.round((start - last.end) * 10) / 10 : 0;
      const goesOn = last?.name === name && start - last.end < JOINED && !SENTENCE_END.test(last.words);
      if (goesOn) last.words += ` ${line.words}`;
      else said.push({ name, words: line.words, pause: 0 });
      said.at(-1).end = end;
    }
  }
  const { turns, names } = numbered(said);
  return { turns, names: Object.fromEntries(Object.entries(names).filter(([, name]) => !NAMELESS.includes(name))) };
}

/** A cue's times and who says what in it; a dash begins what another one says. */
function cueOf(block) {
  const lines = block.split("\n");
  const at = lines.findIndex((line) => TIMES.test(line));
  if (at < 0) return [];
  const [, ...times] = TIMES.exec(lines[at]);
  const [start, end] = [secondsOf(times.slice(0, 4)), secondsOf(times.slice(4))];
  const said = [];
  const texts = lines.slice(at + 1).map((line) => line.trim());
  const isDialogue = texts.filter((line) => /^[-–—]\s*\S/.test(line)).length > 1;
  for (const line of texts) {
    const plain = unescaped(line.replace(/<[^>]*>|\{\\[^}]*\}/g, ""));
    const name = unescaped(VOICE.exec(line)?.[1].trim()) ?? LABEL.exec(plain)?.[1] ?? null;
    const words = plain
      .replace(LABEL, "")
      .replace(isDialogue ? /^[-–—]\s*/ : /^$/, "")
      .trim();
    if (!words) continue;
    const begins = name !== null || (isDialogue && /^[-–—]/.test(plain)) || !said.length;
    if (begins) said.push({ name: name ?? (isDialogue ? NAMELESS[said.length % 2] : null), words });
    else said.at(-1).words += ` ${words}`;
  }
  return said.length ? [{ start, end, lines: said }] : [];
}

function secondsOf([hours = 0, minutes, seconds, fraction]) {
  return Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds) + Number(fraction.padEnd(3, "0")) / 1000;
}

const unescaped = (words) => words?.replace(/&(amp|lt|gt|nbsp|lrm|rlm);/g, (_, name) => ENTITIES[name]);

/** @param {{start: number, end: number, name: string, words: string}[]} turns times in seconds */
export function writeSrt(turns) {
  const cues = turns.map((turn, i) => `${i + 1}\n${range(turn, ",")}\n${turn.name}: ${oneBlock(turn.words)}\n`);
  return `${cues.join("\n")}`;
}

/** As `writeSrt`. */
export function writeVtt(turns) {
  const escaped = (words) => words.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const cues = turns.map((turn) => {
    return `${range(turn, ".")}\n<v ${escaped(turn.name).replace(/\s+/g, " ")}>${escaped(oneBlock(turn.words))}\n`;
  });
  return `WEBVTT\n\n${cues.join("\n")}`;
}

const oneBlock = (words) => words.trim().replace(/\n\s*\n/g, "\n");
const range = ({ start, end }, point) => `${stamp(start, point)} --> ${stamp(end, point)}`;

function stamp(seconds, point) {
  const total = Math.round(seconds * 1000);
  const two = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(total / 3_600_000), Math.floor(total / 60_000) % 60, Math.floor(total / 1000) % 60];
  return `${two(h)}:${two(m)}:${two(s)}${point}${String(total % 1000).padStart(3, "0")}`;
}
