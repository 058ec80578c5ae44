/** Has scripts spoken: all of one, one turn of a take again, the rest of a take, or only what was changed since. */

import { turnsIn } from "./common/api.js";
import { t } from "./common/i18n.js";
import { say, showProblem } from "./common/notices.js";
import { asOne, estimatedSeconds, isSpoken, plainText, scriptOf } from "./script/turns.js";
import { continuing } from "./speech/continuation.js";
import { generate, speak } from "./speech/events.js";
import { estimatedTimes, timesOf } from "./speech/turn_times.js";
import { baseOf, changesOf, isSpokenAs, rearranged, sampleBefore, spliced, withLacking } from "./takes/splice.js";

const SOUND_SECONDS = 10; // of a sound whose length nobody has asked for

/** Events: "error" with what the server said; "change": something has begun, arrived or ended. */
export class Studio extends EventTarget {
  #parts;
  #marks = () => []; // of the speech that is coming, `[turn, time]` each
  #seconds = 0; // that it will take, about, with what stands before it
  #isUpdating = false;

  /** @param {{model, project, settings, casting, takes, deck, speech}} parts of the page */
  constructor(parts) {
    super();
    this.#parts = parts;
    parts.speech.addEventListener("change", () => this.#onSpeech());
  }

  get isBusy() {
    return this.#parts.speech.isComing || this.#isUpdating;
  }

  /** Speak the whole script. */
  async speak() {
    const { project, casting, model } = this.#parts;
    const turns = (model.isDialogue ? project.turns : [asOne(project.turns)]).filter(isSpoken);
    const fields = this.#fields(turns);
    if (!fields) return;
    const seconds = this.#expected(turns, fields);
    const { wanted } = casting;
    const voices = Object.keys(wanted).length ? { voices: wanted } : {};
    const input = model.isDialogue ? scriptOf(project.turns) : plainText(turns).trim();
    const timed = model.isDialogue ? { timestamps: true } : {};
    const body = { input, ...fields, ...voices, ...timed };
    this.#seconds = seconds;
    this.#expect(turns, seconds);
    const result = await this.#run((signal) => speak(body, signal));
    const { recording } = result;
    const baseWith = (timed) => ({ ...timesOf(turns, timed), recording });
    if (recording) await this.#keepAndTime(baseWith, turns, result, fields.seed, turns);
  }

  /** Speak a turn of the script, and put it into the loaded take in the place of what it was there, if it was. */
  async again(id) {
    const { project, deck } = this.#parts;
    const turn = project.turns.find((each) => each.id === id);
    const isThere = deck.take?.turns.some((each) => each.id === id);
    await this.#resume(id, [turn], isThere ? 1 : 0);
  }

  /** Speak the script from a turn on, behind what the loaded take has up to there. */
  async continueFrom(id) {
    const { turns } = this.#parts.project;
    await this.#resume(id, turns.slice(turns.findIndex((each) => each.id === id)), Infinity);
  }

  /** How many turns of the script the loaded take lacks; null: none, or there is nothing of the script in it. */
  get nChanged() {
    const { model, project, deck } = this.#parts;
    if (!deck.take || !model.isDialogue) return null;
    const { kept, nNew, isCut } = changesOf(deck.take, project.turns.filter(isSpoken));
    return kept.length && (nNew || isCut) ? nNew : null;
  }

  /** Make the loaded take one of the script as it is now, and speak only what it lacks. */
  async update() {
    const { project, deck } = this.#parts;
    const turns = project.turns.filter(isSpoken);
    const fields = deck.take && this.#fields(turns);
    if (!fields) return;
    const { take, raw } = deck;
    const { kept, isSame, nNew } = changesOf(take, turns);
    let base = rearranged(baseOf(take, raw), kept);
    let result = { finishReason: "stop", firstSoundMs: 0, workSeconds: 0, start: 0, end: base.recording.length };
    this.#isUpdating = true;
    let nLacking = 0; // of those so far, since a speech of them was cut
    for (let i = 0, n = 0; i < turns.length; i++) {
      if (isSame(turns[i])) continue;
      let end = i + 1;
      while (end < turns.length && !isSame(turns[end])) end += 1;
      say(t("status.updating", { n: n + 1, all: nNew }));
      const [at, nBefore] = [i - nLacking, base.turns.length];
      const part = turns.slice(i, end);
      const spoken = await this.#speakInto(base, at, at, part, fields, true);
      result = spoken.result;
      base = spoken.baseWith?.(await this.#timed(part, result));
      if (!base) break;
      nLacking += end - i - (base.turns.length - nBefore);
      n += end - i;
      i = end - 1;
    }
    this.#isUpdating = false;
    const first = turns.find((turn) => !isSame(turn));
    const mark = base?.turns.findIndex(({ id }) => id === first?.id);
    if (base) await this.#keep(base, result, fields.seed, { asked: turns, mark });
    this.dispatchEvent(new Event("change"));
  }

  /** Tells of a turn whether the loaded take has it: "same", "edited" since, "new"; null: it is of another script. */
  get heard() {
    const { deck, project } = this.#parts;
    const spoken = new Map((deck.take?.turns ?? []).map((turn) => [turn.id, turn]));
    const isOfTake = project.turns.some(({ id }) => spoken.has(id));
    return (turn) => {
      const known = spoken.get(turn.id);
      if (!known) return isOfTake ? "new" : null;
      return isSpokenAs(known, turn) ? "same" : "edited";
    };
  }

  /** Speak turns of the script in the loaded take, in the place of so many of its own. */
  async #resume(id, wanted, nReplaced) {
    const { deck, takes } = this.#parts;
    const turns = wanted.filter(isSpoken);
    const fields = deck.take && this.#fields(turns);
    if (!fields) return;
    const { take, raw } = deck;
    const k = this.#placeOf(id, take);
    const rest = Math.min(take.turns.length, k + nReplaced);
    const { baseWith, result } = await this.#speakInto(baseOf(take, raw), k, rest, turns, fields);
    const { turns: script } = take.project;
    const nBefore = script.findIndex((turn) => turn.id === id);
    const kept = nReplaced === Infinity ? script.slice(0, Math.max(0, nBefore)) : script;
    const asked = withLacking([...take.turns.slice(0, k), ...turns, ...take.turns.slice(rest)], kept);
    if (baseWith) await this.#keepAndTime(baseWith, turns, result, fields.seed, asked);
    else if (result.recording && takes.find(take.id))
      deck.load(take, raw, sampleBefore(baseOf(take, raw), k) / raw.sampleRate);
    else if (result.recording) deck.clear(); // deleted meanwhile
  }

  /**
   * Speak turns into a base.
   *
   * @returns {Promise<{baseWith: Function?, result: object}>} the base with them, of a result with times or without;
   *   null: half a turn is of no use
   */
  async #speakInto(base, k, rest, turns, fields, isQuiet = false) {
    const { casting, model } = this.#parts;
    const [from, to] = [k, rest].map((i) => sampleBefore(base, i));
    const isLast = rest === base.turns.length;
    const start = from / base.recording.sampleRate;
    const seconds = Math.min(estimatedSeconds(turns), fields.max_seconds ?? Infinity);
    const before = base.turns.slice(0, k).map((turn, i) => [turn, base.times[i]]);
    this.#seconds = start + seconds;
    this.#expect(turns, seconds, before, start);
    const ask = async function* (signal) {
      const body = await continuing(base, k, turns, fields, casting.voices, seconds, model.longestClip);
      const fresh = { input: scriptOf(turns), ...fields, voices: casting.wanted, timestamps: true };
      yield* body ? generate(body, signal) : speak(fresh, signal);
    };
    const place = { before: base.recording, from, after: isLast ? null : base.recording.slice(to), isQuiet };
    const result = await this.#run(ask, place);
    const isCut = ["stopped", "broken"].includes(result.finishReason);
    const isOfUse = result.recording && !(isCut && (isQuiet || !isLast));
    return { baseWith: isOfUse ? (timed) => spliced(base, k, rest, turns, timed) : null, result };
  }

  /** Where a turn of the script stands in a take, or would: behind the nearest turn before it that the take has. */
  #placeOf(id, take) {
    const { turns } = this.#parts.project;
    for (let i = turns.findIndex((turn) => turn.id === id); i >= 0; i--) {
      const k = take.turns.findIndex((turn) => turn.id === turns[i].id);
      if (k >= 0) return turns[i].id === id ? k : k + 1;
    }
    return 0;
  }

  /** Fields of a request besides script and voices, or null: it cannot be asked for, and why is shown. */
  #fields(turns) {
    showProblem(null);
    if (!turns.length) {
      showProblem(t("problem.noWords"), "script");
      return null;
    }
    if (!this.#parts.settings.check()) {
      showProblem(t("problem.settings"), "settings");
      return null;
    }
    return { seed: crypto.getRandomValues(new Uint32Array(1))[0], ...this.#parts.settings.request };
  }

  /** A result with the server's times of its turns, where they did not come with it; a single turn needs none. */
  async #timed(turns, result) {
    const { recording, start, end, finishReason } = result;
    if (!recording || result.turns || turns.length < 2 || !this.#parts.model.isDialogue) return result;
    const about = { rate: recording.sampleRate, script: scriptOf(turns), isCut: finishReason !== "stop" };
    const told = await turnsIn(recording.slice(start, end), about);
    return told ? { ...result, turns: told } : result;
  }

  /** Make a take of a result at once, and put the server's times of its new turns in when they are told. */
  async #keepAndTime(baseWith, spoken, result, seed, asked) {
    const { takes } = this.#parts;
    const { id } = await this.#keep(baseWith(result), result, seed, { asked });
    const timed = await this.#timed(spoken, result);
    const now = takes.find(id);
    if (timed === result || !now) return;
    const { turns, times, isEstimate } = baseWith(timed);
    const pauses = new Map(now.turns.map((turn) => [turn.id, turn.pause])); // they may have been changed meanwhile
    const paused = turns.map((turn) => ({ ...turn, pause: pauses.get(turn.id) ?? turn.pause }));
    await takes.update(id, { turns: paused, times, isEstimate });
  }

  /** Mark the turns of a speech that is coming, behind those that stand `before` it up to the second `start`. */
  #expect(turns, seconds, before = [], start = 0) {
    const least = Math.max(seconds, estimatedSeconds(turns));
    this.#marks = (there) => {
      const times = estimatedTimes(turns, Math.max(least, there.seconds - start), there, start);
      return [...before, ...times.map((time, i) => [turns[i], time])];
    };
  }

  /** How long a speech or a sound will be, about, in seconds. */
  #expected(turns, { duration_seconds: wished, max_seconds: most = Infinity }) {
    return Math.min(wished ?? (this.#parts.model.isDescription ? SOUND_SECONDS : estimatedSeconds(turns)), most);
  }

  async #run(ask, place) {
    const { speech } = this.#parts;
    if (!place?.isQuiet) say(t("status.waiting"), true);
    const result = await speech.begin(ask, place);
    if (result.error) this.dispatchEvent(new CustomEvent("error", { detail: result.error }));
    if (!speech.isComing) say(ending(result), !result.error);
    return result;
  }

  #onSpeech() {
    const { speech, deck } = this.#parts;
    if (speech.isHeard) {
      say(t("status.speaking"), true);
      const marks = this.#marks(speech.recording).map(([{ id, speaker, words }, time]) => ({
        id,
        speaker,
        words,
        ...time,
      }));
      deck.showLive(speech.recording, marks, this.#seconds);
    }
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Make a take of a base, and put it into the player: where that is now, or at the turn `mark`, to be played from there.
   * `asked` are the turns that it should have.
   *
   * @returns {Promise<object>} the take
   */
  async #keep(base, result, seed, { asked, mark = null }) {
    const { takes, deck, speech, project } = this.#parts;
    const { recording, turns, times, isEstimate } = base;
    const { finishReason, firstSoundMs, workSeconds } = result;
    const { sampleRate, seconds } = recording;
    const figures = { firstSoundMs, realTimeFactor: (workSeconds * sampleRate) / (result.end - result.start) };
    const about = { project: { ...project.state, turns: asked }, turns, times, isEstimate, seed, finishReason, figures };
    const now = deck.seconds;
    const isOurs = mark !== null || (deck.recording === recording && !speech.isHeard);
    const { take, isKept } = await takes.keep({ ...about, sampleRate, seconds }, recording);
    if (!isKept) showProblem(t("problem.full"), "takes");
    else if (finishReason === "length") showProblem(t("ended.lengthWhy"), "settings");
    if (isOurs) deck.load(take, recording, mark === null ? placeIn(take, now) : { mark: Math.max(0, mark), offset: 0 });
    if (mark !== null) deck.playMark(Math.max(0, mark));
    return take;
  }
}

/** A moment of the samples as they came, as a place in a take that may have pauses. */
function placeIn({ times }, seconds) {
  const mark = times.findLastIndex(({ start }) => start <= seconds);
  if (mark < 0) return seconds;
  const { start, end } = times[mark];
  return { mark, offset: (seconds - start) / (end - start || 1) };
}

function ending({ recording, finishReason }) {
  if (finishReason === "stopped") return t("status.stopped");
  if (finishReason === "broken") return recording ? t("status.broken") : "";
  return t("status.done");
}
