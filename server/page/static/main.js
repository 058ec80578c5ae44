/** Puts the parts of the page together. What users or the server say reaches the document as text, never as HTML. */

import { onLocked } from "./common/api.js";
import { clock, find } from "./common/dom.js";
import { wordsFor } from "./common/errors.js";
import { refuseDropped } from "./common/files.js";
import { language, onLanguage, setLanguage, t, translate } from "./common/i18n.js";
import { setUpMenu } from "./common/menu.js";
import { resolve, say, setUpNotices, showProblem, withdrawUndo } from "./common/notices.js";
import { Panels } from "./common/panels.js";
import { setUpShortcuts } from "./common/shortcuts.js";
import { load, loadProject, saveProject } from "./common/store.js";
import { firstExample } from "./model/examples.js";
import { showForm } from "./model/form.js";
import { Model } from "./model/model.js";
import { Controls } from "./player/controls.js";
import { Deck } from "./player/deck.js";
import { Dock } from "./player/dock.js";
import { Player } from "./player/player.js";
import { Waveform } from "./player/waveform.js";
import { Editor } from "./script/editor.js";
import { FileMenu, projectOf } from "./script/file_menu.js";
import { Podcast } from "./script/podcast.js";
import { Project, emptyProject, readProject } from "./script/project.js";
import { nameOf } from "./script/row.js";
import { turnEntries } from "./script/turn_menu.js";
import { estimatedSeconds } from "./script/turns.js";
import { askForKey, setUpKeyForm, showKeyForm } from "./server/key_form.js";
import { ServerStatus } from "./server/status.js";
import { Settings } from "./settings/settings.js";
import { Speech } from "./speech/speech.js";
import { Studio } from "./studio.js";
import { Compare } from "./takes/compare.js";
import { download } from "./takes/download.js";
import { TakeList } from "./takes/take_list.js";
import { Takes } from "./takes/takes.js";
import { Casting } from "./voices/casting.js";
import { DesignForm } from "./voices/design.js";
import { setUpFirstVoice } from "./voices/first_voice.js";
import { Library } from "./voices/library.js";
import { UploadForm } from "./voices/upload.js";
import { addVoice } from "./voices/voice_api.js";

translate(document);
setUpMenu();
setUpNotices();
refuseDropped();

const saved = load();
const model = new Model();
const first = { ...emptyProject(), ...projectOf(firstExample(model, language())) };
// Versions before this one kept the parts of a project side by side.
const project = new Project(readProject(loadProject() ?? saved, first));
let untouched = project.state.turns === first.turns ? project.state : null; // of a page that was never used; not kept
const panels = new Panels();
const settings = new Settings(project, model, (panel) => panels.show(panel));
const library = new Library(() => namedSpeakers(), model);
const casting = new Casting(project, library, model);
const player = new Player();
const deck = new Deck(player);
const speech = new Speech(player);
const takes = new Takes();
const studio = new Studio({ model, project, settings, casting, takes, deck, speech });
const editor = new Editor(project, (id) => turnEntries(id, { project, editor, studio, deck }));
const controls = new Controls(player, deck, new Waveform(find("waveform"), deck), (id) => editor.light(id));
const compare = new Compare(takes, deck, openTake);
const list = new TakeList(takes, deck, player, compare);
const files = new FileMenu(project, model);
new Podcast((turns, isCut) => files.takeWritten(turns, isCut));
const server = new ServerStatus(() => speech.isComing);
const dock = new Dock({ studio, speech, deck }, saveTake, keepSeed);

function namedSpeakers() {
  if (!model.isDialogue) return [{ speaker: 1, name: t("cast.text") }];
  return casting.speakers.map((speaker) => ({ speaker, name: nameOf(speaker, project.state.names) }));
}

function showModel() {
  showForm(model);
  panels.offer("voices", model.takes("references"));
  editor.isPlain = !model.isDialogue;
  upload.offerDrafts(model.heard);
  find("add-turn").hidden = editor.isText;
}

model.addEventListener("change", ({ detail: { isOther } }) => {
  // Nobody has written anything yet: what fits another model would be no example.
  if (isOther && project.state === untouched) beginAgain(readProject(projectOf(firstExample(model, language()))));
  showModel();
});

function beginAgain(state) {
  untouched = state;
  project.begin(state);
}

/** Ask the server what it is and has; the first script is heard in its voices, where it has some. */
async function askServer() {
  server.ask();
  await Promise.all([library.load(), model.load()]);
  if (project.state === untouched) beginAgain({ ...untouched, cast: casting.castFrom(library.byWords) });
}

function show(error) {
  if (error.status === 401) {
    askForKey();
    return;
  }
  showProblem(wordsFor(error), settings.point(error.param) ? "settings" : causeOf(error));
  if (error.code === "unknown_voice") library.reload(); // so that it is seen which one
}

/** What has to change for an error to be gone. */
function causeOf({ param, message }) {
  if (param === "input" || message.startsWith("text:")) return "script";
  return param === "voices" ? "voices" : "server";
}

// --- the project ---

project.addEventListener("change", ({ detail: { before, state } }) => {
  if (state !== untouched) keepProject();
  withdrawUndo("script");
  if (before.turns !== state.turns) resolve("script");
  if (before.settings !== state.settings) resolve("settings");
  if (before.cast !== state.cast) resolve("voices");
  if (before.turns !== state.turns) putPauses(before.turns, state.turns);
  showProject();
  dock.show();
});

function keepProject() {
  untouched = null;
  saveProject(project.state);
}

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
library.addEventListener("change", () => !casting.trouble && resolve("voices"));
library.addEventListener("heard", () => {
  player.pause();
  design.hush();
});
library.addEventListener("cast", ({ detail: { speaker, name } }) => {
  casting.cast(speaker, name);
  say(t("voice.castDone", { name, speaker: namedSpeakers().find((each) => each.speaker === speaker).name }));
});
library.addEventListener("renamed", ({ detail: { from, to } }) => casting.renamed(from, to));
player.addEventListener("change", () => {
  if (!player.isPlaying) return;
  library.hush();
  design.hush();
});
const castable = () => ({ speakers: namedSpeakers(), free: casting.free });
const upload = new UploadForm(castable, storeVoice, model);
const design = new DesignForm(castable, storeVoice, () => {
  player.pause();
  library.hush();
});

async function storeVoice({ name, clip, text, speaker }) {
  try {
    await addVoice(name, clip, text);
  } catch (error) {
    if (error.status === 401) askForKey();
    throw error;
  }
  await library.load();
  if (speaker) casting.cast(speaker, name);
  const who = namedSpeakers().find((each) => each.speaker === speaker)?.name;
  say(who ? t("voice.storedAndCast", { name, speaker: who }) : t("voice.stored", { name }));
}

setUpFirstVoice(library, () => !studio.isBusy && studio.speak());

// --- takes ---

takes.addEventListener("change", () => {
  if (!deck.take) return;
  const now = takes.find(deck.take.id);
  if (!now) deck.clear();
  else if (now !== deck.take) deck.refresh(now);
});
takes.addEventListener("kept", () => resolve("takes"));

/** @returns {Promise<boolean>} whether it is in the player: its sound may be lost */
async function openTake(id, place = 0) {
  const recording = await soundOf(id);
  const take = takes.find(id);
  if (!recording || !take) return false;
  deck.load(take, recording, place);
  return true;
}

/** A take's samples, or null: the browser has lost them, and so it is said. */
async function soundOf(id) {
  resolve("sound");
  const recording = await takes.recording(id);
  if (recording.length) return recording;
  showProblem(t("take.lost", { name: takes.find(id)?.name ?? "" }), "sound");
  return null;
}

async function saveTake(take, format) {
  showProblem(null);
  const raw = await soundOf(take.id);
  if (!raw) return;
  try {
    say(t("download.making"));
    say(t("download.done", { file: await download(take, raw, format) }));
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
  if (deck.take?.id === take.id) controls.toggle();
  else if (await openTake(take.id)) player.play();
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

studio.addEventListener("change", () => {
  if (untouched && studio.isBusy) keepProject(); // its take is to find it again
});
studio.addEventListener("error", ({ detail }) => show(detail));
speech.addEventListener("change", () => !speech.isHeard && server.ask());
server.addEventListener("back", () => {
  resolve("server");
  library.reload(); // it may have others now
  model.load();
});
onLocked(showKeyForm); // whoever has asked
setUpKeyForm(askServer);

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
addEventListener("beforeunload", (event) => (studio.isBusy || takes.nHomeless) && event.preventDefault());

showModel();
showProject();
upload.showSpeakers();
controls.show();
askServer();
await takes.open();
await files.openLink();
if (takes.list.length && !deck.recording) await openTake(takes.list[0].id);
