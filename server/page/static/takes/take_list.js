/** The list of takes: heard, compared, renamed, restored, saved, deleted. */

import { clock, find, iconButton, made } from "../common/dom.js";
import { language, onLanguage, t } from "../common/i18n.js";
import { askForLine } from "../common/dialog.js";
import { openMenu, opensMenu } from "../common/menu.js";
import { offerUndo } from "../common/notices.js";
import { formats } from "./download.js";

/** Events: "open", "restore" and "seed" about a take; "save" with `{take, format}`. */
export class TakeList extends EventTarget {
  #takes;
  #deck;
  #player;
  #compare;
  #list = find("takes");
  #menus = new Map(); // button of each take's menu, by id: it outlives its row, since its menu may be open

  constructor(takes, deck, player, compare) {
    super();
    [this.#takes, this.#deck, this.#player, this.#compare] = [takes, deck, player, compare];
    for (const source of [takes, deck, player, compare]) source.addEventListener("change", () => this.show());
    onLanguage(() => this.show());
  }

  show() {
    const { list } = this.#takes;
    find("takes-none").hidden = list.length > 0;
    find("takes-lost").hidden = this.#takes.isKept;
    find("takes-count").textContent = list.length ? String(list.length) : "";
    const focused = this.#list.contains(document.activeElement) ? document.activeElement : null;
    const [id, place] = [focused?.closest("li").dataset.id, focused?.dataset.place];
    this.#list.replaceChildren(...list.map((take) => this.#row(take)));
    if (focused) this.#list.querySelector(`[data-id="${id}"] [data-place="${place}"]`)?.focus();
  }

  #row(take) {
    const isLoaded = this.#deck.take?.id === take.id;
    const isPlaying = isLoaded && this.#player.isPlaying;
    const { name } = take;
    if (!this.#menus.has(take.id)) this.#menus.set(take.id, this.#menu(take.id));
    const more = this.#menus.get(take.id);
    for (const attribute of ["aria-label", "title"]) more.setAttribute(attribute, t("take.more", { name }));
    const open = () => this.dispatchEvent(new CustomEvent("open", { detail: take }));
    return made(
      "li",
      { class: isLoaded ? "take loaded" : "take", dataset: { id: take.id } },
      iconButton(isPlaying ? "pause" : "play", t(isPlaying ? "take.pause" : "take.play", { name }), open, {
        class: "round",
        dataset: { place: "play" },
      }),
      made(
        "div",
        { class: "about" },
        made("strong", { title: name, dir: "auto" }, name),
        made("span", { class: "hint" }, `${clock(take.seconds)} · ${dateOf(take.created)}`),
        made("span", { class: "hint beginning", dir: "auto" }, beginning(take)),
        ...badges(take, this.#takes.isHomeless(take.id)).map(({ label, title }) => {
          return made("span", { class: "badge", title }, label);
        }),
      ),
      made("span", { class: "sides" }, this.#side("a", take), this.#side("b", take)),
      more,
    );
  }

  /** The button that opens a take's menu. */
  #menu(id) {
    const more = iconButton("more", "", () => {}, { dataset: { place: "more" } });
    return opensMenu(more, () => this.#entries(this.#takes.find(id), more));
  }

  #entries(take, more) {
    const tell = (type, detail = take) => this.dispatchEvent(new CustomEvent(type, { detail }));
    return [
      { label: t("take.rename"), icon: "edit", act: () => this.#rename(take) },
      { label: t("take.restore"), icon: "undo", act: () => tell("restore") },
      { label: t("take.seed", { seed: String(take.seed) }), icon: "pin", act: () => tell("seed") },
      {
        label: t("take.download"),
        icon: "download",
        act: () =>
          openMenu(
            more,
            formats((format) => tell("save", { take, format })),
          ),
      },
      null,
      { label: t("take.delete"), icon: "trash", isDanger: true, act: () => this.#remove(take) },
    ];
  }

  #side(side, take) {
    const isIt = this.#compare.sideOf(take.id) === side;
    const label = t("compare.set", { side: side.toUpperCase(), name: take.name });
    return made(
      "button",
      {
        type: "button",
        class: "side",
        "aria-pressed": String(isIt),
        "aria-label": label,
        title: label,
        dataset: { place: side },
        onclick: () => this.#compare.set(side, take.id),
      },
      side.toUpperCase(),
    );
  }

  async #rename(take) {
    const name = await askForLine(t("take.newName"), take.name, t("take.rename"));
    if (name?.trim()) await this.#takes.update(take.id, { name: name.trim() });
  }

  async #remove(take) {
    const bringBack = await this.#takes.remove(take.id);
    (this.#list.querySelector("button") ?? find("tab-takes")).focus();
    offerUndo(t("take.deleted", { name: take.name }), bringBack, "takes");
  }
}

const beginning = ({ turns }) => turns[0]?.words.trim().slice(0, 120) ?? "";

function dateOf(created) {
  const isToday = new Date(created).toDateString() === new Date().toDateString();
  const style = isToday ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
  return new Intl.DateTimeFormat(language(), style).format(created);
}

/** How a speech ended, where it is not by itself; and whether it goes with the tab. */
function badges({ finishReason }, isHomeless) {
  const found = isHomeless ? [{ label: t("take.homeless"), title: t("problem.full") }] : [];
  if (finishReason === "stop") return found;
  const known = ["length", "stopped", "broken"].includes(finishReason) ? finishReason : "broken";
  return [...found, { label: t(`ended.${known}`), title: t(`ended.${known}Why`) }];
}
