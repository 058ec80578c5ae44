/** What to begin with, for each model of the family. */

import { NATIVE, examples } from "../script/examples.js";

const TEXTS = [
  {
    language: "en",
    title: "Audio book: the island",
    text: "The boat came in with the tide, an hour before anybody on the island was awake. Only the dog had seen it. He sat at the end of the pier and waited, as he did every morning, for something to come back.",
  },
  {
    language: "zh",
    title: "有声书：小岛",
    text: "船随着潮水靠了岸，那时岛上还没有一个人醒来，只有那条狗看见了。它像每天早晨一样，坐在码头的尽头，等着什么回来。",
  },
];

const DESIGNS = [
  {
    language: "en",
    title: "An old sailor",
    text: "Ahoy there! Mind the rope, mind the bucket, and for heaven's sake mind the cat.",
    settings: { instruction: "An old sailor, hoarse, amused, close to the microphone" },
  },
  {
    language: "en",
    title: "The news at six",
    text: "Good evening. The bridge is open again, the rain stays until Thursday, and the mayor has found his bicycle.",
    settings: { instruction: "A woman of forty, calm and clear, reading the news" },
  },
  {
    language: "zh",
    title: "说书先生",
    text: "话说那一夜风高月黑，城门外忽然来了三匹快马，马上之人一言不发。",
    settings: { instruction: "一位年长的说书先生，声音浑厚，抑扬顿挫" },
  },
];

const SOUNDS = [
  { language: "en", title: "Rain", text: "Rain on a tin roof, far thunder", settings: { duration_seconds: "10" } },
  {
    language: "en",
    title: "A kitchen",
    text: "A busy kitchen: pans, a knife on wood, somebody laughs in the next room",
    settings: { duration_seconds: "8" },
  },
  { language: "zh", title: "清晨的树林", text: "清晨的树林，鸟叫，远处有溪水声", settings: { duration_seconds: "10" } },
];

const BY_MODEL = { tts: TEXTS, voice: DESIGNS, sound: SOUNDS };

/** @returns {{language: string, title: string, names?: object, lines: [number, string][], settings?: object}[]} */
export function examplesFor(model) {
  const own = BY_MODEL[model.name] ?? TEXTS;
  if (model.isDialogue) return examples();
  return own.map(({ language, title, text, settings = {} }) => ({
    language: NATIVE[language],
    title,
    lines: [[1, text]],
    settings,
  }));
}

/** What a page shows that has never been used, by the reader's language. */
export function firstExample(model, language) {
  const all = examplesFor(model);
  return all.find((one) => one.language === NATIVE[language]) ?? all[0];
}
