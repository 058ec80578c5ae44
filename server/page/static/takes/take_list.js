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
    const tell =
      (type, detail = take) =>
      () =>
        this.dispatchEvent(new CustomEvent(type, { detail }));
    const { name } = take;
    const more = iconButton("more", t("take.more", { name }), () => {}, { dataset: { place: "more" } });
    opensMenu(more, () => [
      { label: t("take.rename"), icon: "edit", act: () => this.#rename(take) },
      { label: t("take.restore"), icon: "undo", act: tell("restore") },
      { label: t("take.seed", { seed: String(take.seed) }), icon: "pin", act: tell("seed") },
      {
        label: t("take.download"),
        icon: "download",
        act: () =>
          openMenu(
            more,
            formats((format) => tell("save", { take, format })()),
          ),
      },
      null,
      { label: t("take.delete"), icon: "trash", isDanger: true, act: () => this.#remove(take) },
    ]);
    return made(
      "li",
      { class: isLoaded ? "take loaded" : "take", dataset: { id: take.id } },
      iconButton(isPlaying ? "pause" : "play", t(isPlaying ? "take.pause" : "take.play", { name }), tell("open"), {
        class: "round",
        dataset: { place: "play" },
      }),
      made(
        "div",
        { class: "about" },
        made("strong", {}, name),
        made("span", { class: "hint" }, `${clock(take.seconds)} · ${dateOf(take.created)}`),
        made("span", { class: "hint beginning" }, beginning(take)),
        ...badges(take).map((badge) => made("span", { class: "badge", title: badge.title }, badge.label)),
      ),
      made("span", { class: "sides" }, this.#side("a", take), this.#side("b", take)),
      more,
    );
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
    if (this.#deck.take?.id === take.id) this.#deck.clear();
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

/** How a speech ended, where it is not by itself. */
function badges({ finishReason }) {
  if (finishReason === "stop") return [];
  const known = ["length", "stopped", "broken"].includes(finishReason) ? finishReason : "broken";
  return [{ label: t(`ended.${known}`), title: t(`ended.${known}Why`) }];
}
