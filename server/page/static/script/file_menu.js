/** The project's comings and goings: examples, text and subtitles read, files and links made. */

import { find } from "../common/dom.js";
import { fileName, offer, pick, takeDropped, textOf } from "../common/files.js";
import { language, t } from "../common/i18n.js";
import { opensMenu } from "../common/menu.js";
import { offerUndo, resolve, say, showProblem } from "../common/notices.js";
import { examplesFor } from "../model/examples.js";
import { TooManySpeakers, readScript } from "./parse.js";
import { linkTo, projectFile, readLink, readProjectFile } from "./project_file.js";
import { emptyProject } from "./project.js";
import { isSubtitles, readSubtitles } from "./subtitles.js";
import { newTurn, plainText, scriptOf } from "./turns.js";

const READ = ".txt,.md,.fountain,.srt,.vtt,.json,text/plain,application/json";
const LARGEST = 4_000_000; // bytes of a file

export class FileMenu {
  #project;
  #model;

  /** @param {import("../model/model.js").Model} model for which scripts are */
  constructor(project, model) {
    [this.#project, this.#model] = [project, model];
    opensMenu(find("file"), () => [
      { label: t("file.open"), icon: "open", act: () => this.#pick() },
      null,
      { label: t("file.save"), icon: "download", act: () => this.#save() },
      { label: t("file.text"), icon: "download", act: () => this.#saveText() },
      { label: t("file.link"), icon: "link", act: () => this.#copyLink() },
      null,
      { label: t("file.new"), icon: "plus", act: () => this.#replace(emptyProject(), t("file.cleared")) },
    ]);
    opensMenu(find("example"), () =>
      examplesFor(model).map((one) => ({
        label: `${one.title} · ${one.language}`,
        act: () => this.#replace(projectOf(one)),
      })),
    );
    find("clear").addEventListener("click", () => this.#replace({ turns: emptyProject().turns }, t("file.cleared")));
    takeDropped(find("panel-script"), (file) => this.read(file));
    addEventListener("hashchange", () => this.openLink());
  }

  /** Take the project in the page's address, if there is one. @returns {Promise<boolean>} whether there was */
  async openLink() {
    const found = await readLink(location.hash);
    if (!found) return false;
    history.replaceState(null, "", location.href.split("#")[0]);
    this.#replace(found, t("file.opened"));
    return true;
  }

  /** Take what a file holds: a project, subtitles, or a text. */
  async read(file) {
    resolve("script");
    if (file.size > LARGEST) {
      showProblem(t("file.tooLarge"), "script");
      return;
    }
    const { name } = file;
    const text = await textOf(file, language() === "zh" ? ["gb18030"] : []);
    if (text === null) {
      showProblem(t("file.noText", { name }), "script");
      return;
    }
    try {
      const project = readProjectFile(text);
      if (!project && isJson(name, text)) {
        showProblem(t("file.noProject", { name }), "script");
        return;
      }
      const found = project ?? (isSubtitles(text) ? readSubtitles(text) : this.#read(text));
      if (!found.turns.length || text.includes("\0")) showProblem(t("file.noWords", { name }), "script");
      else this.#replace(found.title === undefined ? { ...found, title: titleOf(file) } : found, t("file.opened"));
    } catch (error) {
      this.explain(error);
    }
  }

  #read(text) {
    return this.#model.isDialogue ? readScript(text) : { turns: text.trim() ? [newTurn(1, text.trim())] : [] };
  }

  /** Take a script that was written for the user; names of speakers were of another one. */
  takeWritten(turns, isCut) {
    this.#replace({ turns, names: {} }, t(isCut ? "podcast.doneCut" : "podcast.done"));
  }

  /** Say why a text cannot be a script. */
  explain(error) {
    if (!(error instanceof TooManySpeakers)) throw error;
    showProblem(t("problem.speakers", { n: error.names.length, names: error.names.join(", ") }), "script");
  }

  async #pick() {
    const file = await pick(READ);
    if (file) await this.read(file);
  }

  /** Another script, which can be undone like everything else. */
  #replace(patch, done = "") {
    this.#project.change(patch);
    if (done) offerUndo(done, () => this.#project.undo(), "script");
  }

  #save() {
    const { state } = this.#project;
    offer(projectFile(state), `${fileName(state.title || "dialogue")}.moss.json`);
  }

  #saveText() {
    const { title, turns } = this.#project.state;
    const text = this.#model.isDialogue ? scriptOf(turns) : plainText(turns);
    offer(
      new Blob([`${text}\n`], { type: "text/plain;charset=utf-8" }),
      `${fileName(title || "dialogue")}.txt`,
    );
  }

  async #copyLink() {
    const link = await linkTo(this.#project.state);
    if (!link) {
      showProblem(t("file.linkTooLong"), "script");
      return;
    }
    try {
      await navigator.clipboard.writeText(link);
      say(t("file.linkCopied"));
    } catch {
      history.replaceState(null, "", link); // plain HTTP has no clipboard
      say(t("file.linkInAddress"));
    }
  }
}

/** An example as a project's part. */
export function projectOf({ title, names = {}, lines, settings }) {
  const turns = lines.map(([speaker, words]) => newTurn(speaker, words));
  return { title, names, turns, ...(settings && { settings }) };
}

/** Whether a file is one for programs, so that nobody wants it read aloud. */
function isJson(name, text) {
  try {
    return /\.json$/i.test(name) || typeof JSON.parse(text) === "object";
  } catch {
    return false;
  }
}

const titleOf = (file) => file.name.replace(/\.[^.]*$/, "").slice(0, 200);
