/** Puts the parts of the page together. What users or the server say reaches the document as text, never as HTML. */

import { clock, find } from "./common/dom.js";
import { wordsFor } from "./common/errors.js";
import { language, onLanguage, setLanguage, t, translate } from "./common/i18n.js";
import { setUpMenu } from "./common/menu.js";
import { resolve, say, setUpNotices, showProblem, withdrawUndo } from "./common/notices.js";
import { Panels } from "./common/panels.js";
import { setUpShortcuts } from "./common/shortcuts.js";
import { load, save } from "./common/store.js";
import { Controls } from "./player/controls.js";
import { Deck } from "./player/deck.js";
import { Dock } from "./player/dock.js";
import { Player } from "./player/player.js";
import { Waveform } from "./player/waveform.js";
import { Editor } from "./script/editor.js";
import { firstExample } from "./script/examples.js";
import { FileMenu, projectOf } from "./script/file_menu.js";
import { Project, emptyProject, readProject } from "./script/project.js";
import { nameOf } from "./script/row.js";
import { turnEntries } from "./script/turn_menu.js";
import { estimatedSeconds } from "./script/turns.js";
import { askForKey, setUpKeyForm } from "./server/key_form.js";
import { ServerStatus } from "./server/status.js";
import { Settings } from "./settings/settings.js";
import { Speech } from "./speech/speech.js";
import { Studio } from "./studio.js";
import { Compare } from "./takes/compare.js";
import { download } from "./takes/download.js";
import { TakeList } from "./takes/take_list.js";
import { Takes } from "./takes/takes.js";
import { Casting } from "./voices/casting.js";
import { setUpFirstVoice } from "./voices/first_voice.js";
import { Library } from "./voices/library.js";
import { UploadForm } from "./voices/upload.js";
import { addVoice } from "./voices/voice_api.js";

translate(document);
setUpMenu();
setUpNotices();

const saved = load();
const first = { ...emptyProject(), ...projectOf(firstExample(language())) };
// Versions before this one kept the parts of a project side by side.
const project = new Project(readProject(saved.project ?? saved, first));
const untouched = project.state.turns === first.turns ? project.state : null; // a page that was never used
const panels = new Panels();
const settings = new Settings(project, () => panels.show("settings"));
const library = new Library(() => namedSpeakers());
const casting = new Casting(project, library);
const player = new Player();
const deck = new Deck(player);
const speech = new Speech(player);
const takes = new Takes();
const studio = new Studio({ project, settings, casting, takes, deck, speech });
const editor = new Editor(project, (id) => turnEntries(id, { project, editor, studio, deck }));
const controls = new Controls(player, deck, new Waveform(find("waveform"), deck), (id) => editor.light(id));
const compare = new Compare(takes, deck, openTake);
const list = new TakeList(takes, deck, player, compare);
const files = new FileMenu(project);
const server = new ServerStatus(() => speech.isComing);
const dock = new Dock({ studio, speech, deck }, saveTake, keepSeed);

function namedSpeakers() {
  return casting.speakers.map((speaker) => ({ speaker, name: nameOf(speaker, project.state.names) }));
}

function show(error) {
  if (error.status === 401) {
    askForKey();
    return;
  }
  showProblem(wordsFor(error), settings.point(error.param) ? "settings" : causeOf(error));
}

/** What has to change for an error to be gone. */
function causeOf({ param, message }) {
  if (param === "input" || message.startsWith("text:")) return "script";
  return param === "voices" ? "voices" : "server";
}

// --- the project ---

project.addEventListener("change", ({ detail: { before, state } }) => {
  save({ project: state });
  withdrawUndo("script");
  if (before.turns !== state.turns) resolve("script");
  if (before.settings !== state.settings) resolve("settings");
  if (before.cast !== state.cast) resolve("voices");
  if (before.turns !== state.turns) putPauses(before.turns, state.turns);
  showProject();
  dock.show();
});

function showProject() {
  const { turns, title } = project.state;
  const spoken = turns.filter((turn) => turn.words.trim());
  const letters = spoken.reduce((sum, turn) => sum + [...turn.words.trim()].length, 0);
  const pauses = spoken.slice(0, -1).reduce((sum, turn) => sum + turn.pause, 0);
  const length = clock(estimatedSeconds(turns) + pauses);
  find("script-size").textContent = t("script.size", { turns: spoken.length, letters, length });
  if (find("title").value.trim() !== title.trim()) find("title").value = title;
  find("undo").disabled = !project.canUndo;
  find("redo").disabled = !project.canRedo;
}

/** Pauses that were changed in the script are changed in the take that is loaded, which need not be spoken again. */
async function putPauses(before, now) {
  const { take } = deck;
  if (!take) return;
  const was = new Map(before.map(({ id, pause }) => [id, pause]));
  const changed = new Map(
    now.filter(({ id, pause }) => was.has(id) && was.get(id) !== pause).map((turn) => [turn.id, turn.pause]),
  );
  if (!take.turns.some(({ id }) => changed.has(id))) return;
  const turns = take.turns.map((turn) => (changed.has(turn.id) ? { ...turn, pause: changed.get(turn.id) } : turn));
  await takes.update(take.id, { turns });
}

find("title").addEventListener("input", ({ target }) => project.change({ title: target.value }, "title"));
find("undo").addEventListener("click", () => project.undo());
find("redo").addEventListener("click", () => project.redo());
find("add-turn").addEventListener("click", () => editor.insertAfter());
find("as-text").addEventListener("click", () => {
  editor.isText = !editor.isText;
  find("as-text").setAttribute("aria-pressed", String(editor.isText));
  find("add-turn").hidden = editor.isText;
});
editor.addEventListener("unreadable", ({ detail }) => files.explain(detail));
editor.addEventListener("hear", ({ detail: id }) => deck.playMark(deck.markOf(id)));
editor.addEventListener("again", ({ detail: id }) => !studio.isBusy && studio.again(id));

// --- voices ---

library.addEventListener("locked", askForKey);
library.addEventListener("heard", () => player.pause());
library.addEventListener("cast", ({ detail: { speaker, name } }) => {
  casting.cast(speaker, name);
  say(t("voice.castDone", { name, speaker: nameOf(speaker, project.state.names) }));
});
library.addEventListener("renamed", ({ detail: { from, to } }) => casting.renamed(from, to));
player.addEventListener("change", () => player.isPlaying && library.hush());
const upload = new UploadForm(
  () => ({ speakers: namedSpeakers(), free: casting.free }),
  async ({ name, clip, text, speaker }) => {
    try {
      await addVoice(name, clip, text);
    } catch (error) {
      if (error.status === 401) askForKey();
      throw error;
    }
    await library.load();
    if (speaker) casting.cast(speaker, name);
    const who = speaker && nameOf(speaker, project.state.names);
    say(speaker ? t("voice.storedAndCast", { name, speaker: who }) : t("voice.stored", { name }));
  },
);

setUpFirstVoice(library, () => !studio.isBusy && studio.speak());

// --- takes ---

takes.addEventListener("change", () => {
  const now = takes.find(deck.take?.id);
  if (now && now !== deck.take) deck.refresh(now);
});

async function openTake(id, place = 0) {
  const take = takes.find(id);
  deck.load(take, await takes.recording(id), place);
}

async function saveTake(take, format) {
  showProblem(null);
  try {
    say(t("download.making"));
    say(t("download.done", { file: await download(take, await takes.recording(take.id), format) }));
  } catch (error) {
    say("");
    show(error);
  }
}

function keepSeed(seed) {
  settings.seed = seed;
  say(t("figures.seedKept", { seed: String(seed) }));
}

list.addEventListener("open", async ({ detail: take }) => {
  if (deck.take?.id !== take.id) await openTake(take.id);
  else return controls.toggle();
  return player.play();
});
list.addEventListener("restore", async ({ detail: take }) => {
  project.change(readProject({ ...take.project, title: project.state.title || take.project.title }));
  if (deck.take?.id !== take.id && !speech.isComing) await openTake(take.id);
  say(t("take.restored", { name: take.name }));
});
list.addEventListener("seed", ({ detail: take }) => keepSeed(take.seed));
list.addEventListener("save", ({ detail: { take, format } }) => saveTake(take, format));
deck.addEventListener("change", () => (editor.heard = () => studio.heard));

// --- the server ---

studio.addEventListener("error", ({ detail }) => show(detail));
speech.addEventListener("change", () => !speech.isHeard && server.ask());
server.addEventListener("back", () => {
  resolve("server");
  if (!library.isLoaded) library.load();
});
setUpKeyForm(() => {
  library.load();
  server.ask();
});

// --- the page ---

setUpShortcuts(
  {
    speak: () => dock.speakOrStop(),
    stop: () => speech.stop(),
    play: () => controls.toggle(),
    undo: () => project.undo(),
    redo: () => project.redo(),
    swap: () => compare.swap(),
  },
  () => studio.isBusy,
);
find("language").value = language();
find("language").addEventListener("change", ({ target }) => setLanguage(target.value));
onLanguage(showProject);
addEventListener("beforeunload", (event) => speech.isHeard && event.preventDefault());

showProject();
upload.showSpeakers();
controls.show();
library.load().then(() => {
  // The first script is heard in the server's voices, where it has some.
  if (project.state === untouched && library.names.length) casting.castFrom(library.names);
});
server.ask();
await takes.open();
await files.openLink();
if (takes.list.length && !deck.recording) await openTake(takes.list[0].id);
