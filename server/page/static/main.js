/** Puts the parts of the page together. What users or the server say reaches the document as text, never as HTML. */

import { setKey, speakFile } from "./api.js";
import { Editor } from "./editor.js";
import { Player } from "./player.js";
import { EXAMPLE, estimatedSeconds, savedTurns, scriptOf, speakersOf } from "./script.js";
import { Settings } from "./settings.js";
import { Speech } from "./speech.js";
import { load, save } from "./store.js";
import { UploadForm } from "./upload.js";
import { Voices } from "./voices.js";
import { Waveform } from "./waveform.js";

const PREVIEW_SECONDS = 10;
const PREVIEW_WORDS = "Hello! This is what I sound like.";

const find = (id) => document.getElementById(id);
const saved = load();
const editor = new Editor();
const settings = new Settings(saved.settings);
const voices = new Voices(saved.voices);
const player = new Player();
const speech = new Speech(player);
const waveform = new Waveform(find("waveform"));
let asked = null; // request that was made last
let hasTriedKey = false;
let download = null; // AbortController of a file that the server is making

function say(message) {
  find("status").textContent = message;
}

function showProblem(message) {
  find("problem").textContent = message ?? "";
  find("problem").hidden = !message;
}

function show(error) {
  if (error.status === 401) {
    askForKey();
    return;
  }
  showProblem(error.message);
  settings.point(error.param);
}

function askForKey() {
  if (hasTriedKey) find("key-hint").textContent = "The server did not take this key.";
  find("key-form").hidden = false;
  find("key").focus();
}

// --- the script ---

function showSize() {
  const { turns } = editor;
  const nLetters = turns.reduce((sum, turn) => sum + [...turn.words.trim()].length, 0);
  const nTurns = turns.filter((turn) => turn.words.trim()).length;
  const count = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
  find("script-size").textContent =
    `${count(nTurns, "turn")} · ${count(nLetters, "character")} · about ${clock(estimatedSeconds(turns), 0)}`;
  voices.speakers = speakersOf(turns);
}

editor.addEventListener("change", () => {
  save({ turns: editor.turns });
  showSize();
});
editor.addEventListener("say", (event) => say(event.detail));
find("add-turn").addEventListener("click", () => editor.append());
find("clear").addEventListener("click", () => (editor.turns = []));
find("example").addEventListener("click", () => (editor.turns = EXAMPLE));
find("as-text").addEventListener("click", () => {
  editor.isText = !editor.isText;
  find("as-text").setAttribute("aria-pressed", String(editor.isText));
  find("add-turn").hidden = editor.isText;
});

// --- voices and settings ---

voices.addEventListener("change", () => save({ voices: voices.chosen }));
voices.addEventListener("say", (event) => say(event.detail));
voices.addEventListener("locked", askForKey);
voices.addEventListener("preview", ({ detail: voice }) => {
  const body = { input: PREVIEW_WORDS, voice: voice.name, max_seconds: PREVIEW_SECONDS, seed: 0 };
  ask({ body, name: `preview-${voice.name}`, expectedSeconds: PREVIEW_SECONDS / 3 });
});
new UploadForm(async (form) => {
  try {
    await voices.add(form);
  } catch (error) {
    if (error.status === 401) askForKey();
    throw error;
  }
  say(`${form.get("name")} is stored.`);
});
settings.addEventListener("change", () => save({ settings: settings.values }));
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(find("key").value.trim());
  hasTriedKey = true;
  find("key").value = "";
  find("key-form").hidden = true;
  voices.load();
});

// --- speech ---

function speakScript() {
  showProblem(null);
  const { turns } = editor;
  const input = scriptOf(turns);
  if (!input) {
    showProblem("There is nothing to say yet: write a turn first.");
    return;
  }
  if (!settings.check()) {
    showProblem("A setting is out of range.");
    return;
  }
  const body = { input, seed: crypto.getRandomValues(new Uint32Array(1))[0], ...settings.request };
  if (Object.keys(voices.wanted).length) body.voices = voices.wanted;
  const expected = estimatedSeconds(turns);
  ask({ body, name: "dialogue", expectedSeconds: Math.min(expected, body.max_seconds ?? expected) });
}

async function ask(request) {
  showProblem(null);
  asked = request;
  say("Waiting for the first sound…");
  try {
    const isWhole = await speech.begin(request);
    if (asked === request) say(isWhole ? "Everything is here." : "Stopped.");
  } catch (error) {
    say(speech.request === request ? "It broke off." : "");
    show(error);
  }
}

function speakOrStop() {
  if (speech.isComing) speech.stop();
  else if (download) download.abort();
  else speakScript();
}

speech.addEventListener("change", () => {
  showButtons();
  draw();
  if (speech.recording) showFigures();
  if (speech.isComing && speech.request === asked) say("Speaking…");
});

function showFigures() {
  const { recording, firstSoundMs, realTimeFactor } = speech;
  const { seed } = speech.request.body;
  find("first-sound").textContent = `${Math.round(firstSoundMs).toLocaleString("en")} ms`;
  find("length").textContent = `${recording.seconds.toFixed(2)} s`;
  find("rtf").textContent = `${realTimeFactor.toFixed(2)} (${(1 / realTimeFactor).toFixed(1)}×)`;
  find("seed").textContent = String(seed);
  find("seed").setAttribute("aria-label", `Seed ${seed}: keep it in the settings`);
  find("seed").disabled = false;
}

function showButtons() {
  const isBusy = speech.isComing || download !== null;
  find("speak").textContent = isBusy ? "Stop" : "Speak";
  find("speak").className = isBusy ? "danger" : "primary";
  find("pause").textContent = player.isPlaying ? "Pause" : "Play";
  find("pause").disabled = !speech.recording;
  find("format").disabled = find("download").disabled = !speech.recording || isBusy;
}

find("speak").addEventListener("click", speakOrStop);
find("pause").addEventListener("click", () => (player.isPlaying ? player.pause() : player.play()));
find("seed").addEventListener("click", () => {
  settings.seed = speech.request.body.seed;
  find("settings").open = true;
  say("The next speech has the same seed.");
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !speech.isComing) speakOrStop();
  else if (event.key === "Escape" && (speech.isComing || download) && !find("confirm").open) speakOrStop();
  else return;
  event.preventDefault();
});

// --- what is heard ---

function draw() {
  const { recording } = speech;
  const position = recording ? player.position : 0;
  waveform.show(recording, position, speech.expectedSeconds);
  const rate = recording?.sampleRate ?? 1;
  find("time").textContent = `${clock(position / rate, 1)} / ${clock(recording?.seconds ?? 0, 1)}`;
  if (recording && player.isPlaying) scheduleDraw();
}

let isDrawScheduled = false;
function scheduleDraw() {
  if (isDrawScheduled) return;
  isDrawScheduled = true;
  requestAnimationFrame(() => {
    isDrawScheduled = false;
    draw();
  });
}

player.addEventListener("change", () => {
  showButtons();
  draw();
});
waveform.addEventListener("seek", (event) => {
  player.seek(event.detail * speech.recording.sampleRate);
  draw();
});

// --- files ---

find("download").addEventListener("click", async () => {
  const { body, name } = speech.request;
  const format = find("format").value;
  const file = `${name}-${body.seed}.${format}`;
  if (format === "wav") {
    offer(speech.recording.toWav(), file);
    return;
  }
  // Formats but WAV are encoded by the server, which repeats a speech from its seed.
  showProblem(null);
  say(`The server speaks it once more, as ${format.toUpperCase()}…`);
  download = new AbortController();
  showButtons();
  try {
    offer(await speakFile(body, format, download.signal), file);
    say(`${file} is here.`);
  } catch (error) {
    say(error.name === "AbortError" ? "Stopped." : "");
    if (error.name !== "AbortError") show(error);
  } finally {
    download = null;
    showButtons();
  }
});

function offer(blob, file) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** 1:05.3 */
function clock(seconds, digits) {
  const rounded = Number(seconds.toFixed(digits));
  const rest = (rounded % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return `${Math.floor(rounded / 60)}:${rest}`;
}

editor.turns = savedTurns(saved.turns) ?? EXAMPLE;
voices.load();
showButtons();
draw();
