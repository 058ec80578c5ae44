/** The voices that the server keeps: heard, searched, cast, changed. */

import { clock, find, iconButton, made, showIcon, showText } from "../common/dom.js";
import { askForLine, askForText, isConfirmed } from "../common/dialog.js";
import { pick } from "../common/files.js";
import { onLanguage, t } from "../common/i18n.js";
import { opensMenu } from "../common/menu.js";
import { say } from "../common/notices.js";
import { wordsFor } from "../common/errors.js";
import { ClipPlayer } from "./clip_player.js";
import { AUDIO_FILES, checkClip } from "./clip_check.js";
import { fetchClip, listVoices, putVoice, removeVoice, renameVoice } from "./voice_api.js";

const SEARCHED = 6; // from so many voices on there is a field to search them

/** Events: "change"; "cast" with `{speaker, name}`; "renamed" with `{from, to}`; "locked": the server wants a key. */
export class Library extends EventTarget {
  isLoaded = false;
  #voices = [];
  #clips = new ClipPlayer(fetchClip);
  #speakers;
  #model;

  /**
   * @param {() => {speaker: number, name: string}[]} speakers of the script, with what they are called
   * @param {import("../model/model.js").Model} model that speaks
   */
  constructor(speakers, model) {
    super();
    [this.#speakers, this.#model] = [speakers, model];
    find("voice-search").addEventListener("input", () => this.show());
    this.#clips.addEventListener("change", () => this.#showPlaying());
    this.#clips.addEventListener("start", () => this.dispatchEvent(new Event("heard")));
    onLanguage(() => this.show());
  }

  get names() {
    return this.#voices.map(({ name }) => name);
  }

  /** The same, first those that can be continued, since a clip without a transcript keeps all of a cast from it. */
  get byWords() {
    const [known, mute] = [true, false].map((has) => this.#voices.filter(({ text }) => Boolean(text) === has));
    return [...known, ...mute].map(({ name }) => name);
  }

  find(name) {
    return this.#voices.find((voice) => voice.name === name) ?? null;
  }

  /** Be silent. */
  hush() {
    this.#clips.stop();
  }

  /** Ask the server; what it refuses is shown. */
  async load() {
    await this.#try(async () => {
      this.#voices = await listVoices();
      this.isLoaded = true;
    });
    this.show();
    this.dispatchEvent(new Event("change"));
  }

  /** Ask again: the server may have other voices under the same names. */
  reload() {
    this.#clips.forget();
    return this.load();
  }

  show() {
    const isSearched = this.#voices.length >= SEARCHED;
    find("search-field").hidden = !isSearched;
    const wanted = isSearched ? find("voice-search").value.trim().toLocaleLowerCase() : "";
    const found = this.#voices.filter(({ name, text }) => `${name} ${text ?? ""}`.toLocaleLowerCase().includes(wanted));
    const [starters, stored] = [true, false].map((is) => found.filter(({ starter }) => Boolean(starter) === is));
    find("voices").replaceChildren(...stored.map((voice) => this.#row(voice)));
    find("starters").replaceChildren(...starters.map((voice) => this.#row(voice)));
    find("starters-part").hidden = !starters.length;
    find("voices-title").hidden = starters.length > 0 && !stored.length;
    find("voices-none").hidden = !this.#voices.length || found.length > 0;
    this.#showPlaying();
  }

  #row(voice) {
    const { name, text, starter } = voice;
    const own = [
      null,
      { label: t("voice.transcript"), icon: "edit", act: () => this.#editTranscript(voice) },
      { label: t("voice.rename"), icon: "edit", act: () => this.#rename(voice) },
      { label: t("voice.replace"), icon: "upload", act: () => this.#replace(voice) },
      { label: t("voice.delete"), icon: "trash", isDanger: true, act: () => this.#remove(voice) },
    ];
    const more = iconButton("more", t("voice.more", { name }), () => {});
    opensMenu(more, () => [
      { title: t("voice.castAs") },
      ...this.#speakers().map((who) => ({
        label: who.name,
        icon: "person",
        act: () => this.dispatchEvent(new CustomEvent("cast", { detail: { speaker: who.speaker, name } })),
      })),
      ...(starter ? [] : own),
    ]);
    return made(
      "li",
      { dataset: { name } },
      iconButton("play", t("voice.play", { name }), () => this.#play(name), { class: "round" }),
      made(
        "div",
        { class: "about" },
        made("strong", { class: "name", title: name, dir: "auto" }, name),
        made("span", { class: "hint" }, clock(Number(voice.seconds), 1)),
        made("span", { class: "hint beginning", title: text, dir: "auto" }, text ?? t("voice.noTranscript")),
      ),
      more,
    );
  }

  #showPlaying() {
    for (const row of [...find("voices").children, ...find("starters").children]) {
      const { name } = row.dataset;
      const isPlaying = this.#clips.playing === name;
      showIcon(
        row.querySelector(".round"),
        isPlaying ? "stop" : "play",
        t(isPlaying ? "voice.stop" : "voice.play", { name }),
      );
    }
  }

  #play(name) {
    return this.#try(() => this.#clips.toggle(name));
  }

  async #editTranscript(voice) {
    const { name } = voice;
    const text = await askForText(t("voice.transcriptOf", { name }), voice.text ?? "", t("voice.save"));
    if (text === null || text.trim() === (voice.text ?? "")) return;
    await this.#change(async () => putVoice(name, await fetchClip(name), text), t("voice.saved", { name }));
  }

  async #rename(voice) {
    const from = voice.name;
    const to = (await askForLine(t("voice.newName", { name: from }), from, t("voice.rename")))?.trim();
    if (!to || to === from) return;
    const isDone = await this.#change(() => renameVoice(voice, to), t("voice.renamed", { from, to }));
    if (isDone) this.dispatchEvent(new CustomEvent("renamed", { detail: { from, to } }));
  }

  async #replace({ name, text }) {
    const clip = await pick(AUDIO_FILES);
    if (!clip) return;
    const { findings } = await checkClip(clip, this.#model.longestClip);
    const words = await askForText(
      [t("voice.replaceWords", { name }), ...findings].join(" "),
      text ?? "",
      t("voice.replace"),
    );
    if (words !== null) await this.#change(() => putVoice(name, clip, words), t("voice.saved", { name }));
  }

  async #remove({ name }) {
    if (!(await isConfirmed(t("voice.deleteSure", { name }), t("voice.delete")))) return;
    const isDone = await this.#change(() => removeVoice(name), t("voice.deleted", { name }), 404);
    if (!isDone) return;
    this.dispatchEvent(new CustomEvent("renamed", { detail: { from: name, to: null } }));
    find("add-voice").querySelector("summary").focus();
  }

  /** Have the server change something, and show what it has then. @returns {Promise<boolean>} whether it did */
  async #change(work, done, harmless = 0) {
    this.#clips.forget();
    if (!(await this.#try(work, harmless))) return false;
    await this.load();
    say(done);
    return true;
  }

  async #try(work, harmless = 0) {
    showText(find("voices-error"), null);
    try {
      await work();
      return true;
    } catch (error) {
      if (error.status === 401) this.dispatchEvent(new Event("locked"));
      else showText(find("voices-error"), error.name === "NotSupportedError" ? t("clip.unreadable") : wordsFor(error));
      return Boolean(harmless) && error.status === harmless; // somebody else was faster
    }
  }
}
