/** The buttons around the waveform: play, skip, speed, volume, time. */

import { clock, find, showIcon, showText } from "../common/dom.js";
import { onLanguage, t } from "../common/i18n.js";
import { opensMenu } from "../common/menu.js";
import { load, save } from "../common/store.js";
import { nameOf } from "../script/row.js";

const SPEEDS = [0.5, 0.75, 1, 1.25, 1.5, 2];
const SKIP_SECONDS = 5;

export class Controls {
  #player;
  #deck;
  #waveform;
  #speed = 1;
  #volume = 1;
  #isMuted = false;
  #isScheduled = false;
  #onTurn;

  /** @param {(id: string?) => void} onTurn is told which turn is heard while it plays */
  constructor(player, deck, waveform, onTurn) {
    [this.#player, this.#deck, this.#waveform, this.#onTurn] = [player, deck, waveform, onTurn];
    find("pause").addEventListener("click", () => this.toggle());
    find("earlier").addEventListener("click", () => deck.step(-1));
    find("later").addEventListener("click", () => deck.step(1));
    find("back").addEventListener("click", () => this.skip(-SKIP_SECONDS));
    find("forward").addEventListener("click", () => this.skip(SKIP_SECONDS));
    opensMenu(find("speed"), () =>
      SPEEDS.map((speed) => ({
        label: `${speed}×`,
        isChecked: speed === this.#speed,
        act: () => this.#setSpeed(speed),
      })),
    );
    find("mute").addEventListener("click", () => this.#setVolume(this.#volume, !this.#isMuted));
    find("volume").addEventListener("input", ({ target }) => this.#setVolume(Number(target.value) / 100, false));
    waveform.addEventListener("seek", ({ detail }) => deck.seek(detail));
    waveform.addEventListener("turn", ({ detail }) => deck.playMark(detail));
    for (const source of [player, deck]) source.addEventListener("change", () => this.show());
    deck.addEventListener("seek", () => this.show());
    onLanguage(() => this.show());
    const { volume, speed } = load();
    this.#setVolume(volume >= 0 && volume <= 1 ? volume : 1, false);
    this.#setSpeed(SPEEDS.includes(speed) ? speed : 1);
  }

  toggle() {
    if (this.#player.isPlaying) this.#player.pause();
    else this.#player.play();
  }

  skip(seconds) {
    if (this.#deck.recording) this.#deck.seek(Math.max(0, this.#deck.seconds + seconds));
  }

  /** Show everything as it is now, and on while it plays. */
  show() {
    const { recording, seconds, take, isEstimate, marks } = this.#deck;
    const isThere = Boolean(recording?.length);
    find("dock").classList.toggle("idle", !isThere);
    for (const id of ["pause", "earlier", "later", "back", "forward"]) find(id).disabled = !isThere;
    if (this.#player.isPlaying) showIcon(find("pause"), "pause", t("player.pause"));
    else showIcon(find("pause"), "play", t("player.play"));
    find("time").textContent = isThere ? `${clock(seconds, 1)} / ${clock(recording.seconds, 1)}` : "";
    showText(find("heard"), take?.name);
    const mark = isThere ? marks[this.#deck.markAt(seconds)] : null;
    const words = mark && `${nameOf(mark.speaker, take?.project.names ?? {})}: ${mark.words.trim()}`;
    showText(find("caption"), words ?? "");
    if (mark) find("caption").dataset.speaker = String(mark.speaker);
    find("estimate").hidden = !(isThere && take && isEstimate);
    this.#waveform.draw();
    this.#onTurn(mark && (this.#player.isPlaying || seconds > 0) ? mark.id : null);
    if (this.#player.isPlaying) this.#again();
  }

  #again() {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    requestAnimationFrame(() => {
      this.#isScheduled = false;
      this.show();
    });
  }

  #setSpeed(speed) {
    this.#player.speed = this.#speed = speed;
    find("speed").textContent = `${speed}×`;
    save({ speed });
    this.show();
  }

  #setVolume(volume, isMuted) {
    [this.#volume, this.#isMuted] = [volume, isMuted];
    this.#player.volume = isMuted ? 0 : volume;
    find("volume").value = String(Math.round(volume * 100));
    const isSilent = isMuted || volume === 0;
    showIcon(find("mute"), isSilent ? "muted" : "volume", t(isSilent ? "player.unmute" : "player.mute"));
    save({ volume });
  }
}
