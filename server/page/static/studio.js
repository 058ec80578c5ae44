/** Has scripts spoken: all of one, one turn of a take again, or the rest of a take from a turn on. */

import { t } from "./common/i18n.js";
import { say, showProblem } from "./common/notices.js";
import { estimatedSeconds, isSpoken, scriptOf } from "./script/turns.js";
import { continuing } from "./speech/continuation.js";
import { generate, speak } from "./speech/events.js";
import { cutBefore, estimatedTimes, timesOf } from "./speech/turn_times.js";

/** Events: "error" with what the server said, "settings": one of them is out of range, "changed": it has begun or ended. */
export class Studio extends EventTarget {
  #parts;
  #marks = () => []; // of the speech that is coming
  #seconds = 0; // that it will take, about, with what stands before it

  /** @param {{project, settings, casting, takes, deck, speech}} parts of the page */
  constructor(parts) {
    super();
    this.#parts = parts;
    parts.speech.addEventListener("change", () => this.#onSpeech());
  }

  /** Speak the whole script. */
  async speak() {
    const { project, casting } = this.#parts;
    const turns = project.turns.filter(isSpoken);
    const fields = this.#fields(turns);
    if (!fields) return;
    const seconds = Math.min(estimatedSeconds(turns), fields.max_seconds ?? Infinity);
    const body = { input: scriptOf(project.turns), ...fields, ...this.#voices(casting) };
    this.#marks = ({ seconds: there }) => estimatedTimes(turns, Math.max(seconds, there)).map((time, i) => [turns[i], time]);
    const result = await this.#run((signal) => speak(body, signal), seconds);
    if (!result.recording) return;
    const { times, isEstimate } = timesOf(turns, result.recording, result.turns);
    await this.#keep(result, { project: project.state, turns, times, isEstimate, seed: fields.seed });
  }

  /** Speak a turn of the script anew, and put it into the loaded take in the place of what it was. */
  again(id) {
    const turn = this.#parts.project.turns.find((each) => each.id === id);
    return this.#resume(id, [turn], this.#isIn(id) ? 1 : 0);
  }

  /** Speak the script anew from a turn on, behind what the loaded take has up to there. */
  continueFrom(id) {
    const { turns } = this.#parts.project;
    return this.#resume(id, turns.slice(turns.findIndex((each) => each.id === id)), Infinity);
  }

  stop() {
    this.#parts.speech.stop();
  }

  /** Whether the loaded take has a turn: "same", "edited" since, or null. */
  heard(turn) {
    const spoken = this.#parts.deck.take?.turns.find(({ id }) => id === turn.id);
    if (!spoken) return null;
    return spoken.words.trim() === turn.words.trim() && spoken.speaker === turn.speaker ? "same" : "edited";
  }

  #isIn(id) {
    return this.#parts.deck.take?.turns.some((turn) => turn.id === id) ?? false;
  }

  /**
   * Speak turns behind the first ones of the loaded take.
   *
   * @param {string} id turn of the script that is the first to be spoken
   * @param {object[]} wanted turns of the script
   * @param {number} nReplaced turns of the take that they stand in the place of; Infinity: of all that follow
   */
  async #resume(id, wanted, nReplaced) {
    const { deck, casting, project } = this.#parts;
    const { take, raw } = deck;
    const turns = wanted.filter(isSpoken);
    const fields = take && this.#fields(turns);
    if (!fields) return;
    const k = this.#placeOf(id, take);
    const rest = Math.min(take.turns.length, k + nReplaced);
    const [from, to] = [k, rest].map((i) => Math.round(cutBefore(take.times, i, raw) * raw.sampleRate));
    const isLast = rest === take.turns.length;
    const seconds = Math.min(estimatedSeconds(turns), fields.max_seconds ?? Infinity);
    const earlier = { turns: take.turns, times: take.times, recording: raw };
    const ask = async function* (signal) {
      const body = await continuing(earlier, k, turns, fields, casting.voices, seconds);
      yield* body ? generate(body, signal) : speak({ input: scriptOf(turns), ...fields, voices: casting.wanted }, signal);
    };
    const start = from / raw.sampleRate;
    const before = take.turns.slice(0, k).map((turn, i) => [turn, take.times[i]]);
    const expected = (there) => estimatedTimes(turns, Math.max(seconds, there.seconds - start), null, start);
    this.#marks = (there) => [...before, ...expected(there).map((time, i) => [turns[i], time])];
    const place = { before: raw, from, after: isLast ? null : raw.slice(to) };
    const result = await this.#run(ask, start + seconds, place);
    if (!result.recording) return;
    if (!isLast && ["stopped", "broken"].includes(result.finishReason)) {
      this.#parts.deck.load(take, raw, start); // half a turn in the middle is of no use
      return;
    }
    const [begun, ended] = [result.start, result.end].map((sample) => sample / raw.sampleRate);
    const spoken = estimatedTimes(turns, ended - begun, result.recording, begun);
    const shift = ended - to / raw.sampleRate;
    const behind = take.times.slice(rest).map((time) => ({ start: time.start + shift, end: time.end + shift }));
    const all = [...take.turns.slice(0, k), ...turns, ...take.turns.slice(rest)];
    await this.#keep(
      result,
      {
        project: { ...project.state, turns: all },
        turns: all,
        times: [...take.times.slice(0, k), ...spoken, ...behind],
        isEstimate: take.isEstimate || turns.length > 1,
        seed: fields.seed,
      },
    );
  }

  /** Where a turn of the script stands in a take, or would stand: behind the nearest turn before it that the take has. */
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

  #voices({ wanted }) {
    return Object.keys(wanted).length ? { voices: wanted } : {};
  }

  async #run(ask, seconds, place) {
    const { speech } = this.#parts;
    this.#seconds = seconds;
    say(t("status.waiting"));
    const result = await speech.begin(ask, place);
    if (result.error) this.dispatchEvent(new CustomEvent("error", { detail: result.error }));
    if (!speech.isComing) say(ending(result), !result.error);
    return result;
  }

  #onSpeech() {
    const { speech, deck } = this.#parts;
    if (speech.isHeard) {
      say(t("status.speaking"), true);
      const marks = this.#marks(speech.recording).map(([{ id, speaker, words }, time]) => ({ id, speaker, words, ...time }));
      deck.showLive(speech.recording, marks, this.#seconds);
    }
    this.dispatchEvent(new Event("changed"));
  }

  /** Make a take of what came, and put it into the player where it is now. */
  async #keep(result, made) {
    const { takes, deck, speech } = this.#parts;
    const { recording, finishReason, firstSoundMs, workSeconds } = result;
    const newSeconds = (result.end - result.start) / recording.sampleRate;
    const figures = { firstSoundMs, realTimeFactor: workSeconds / newSeconds };
    const { seconds: now } = deck;
    const isOurs = deck.recording === recording && !speech.isHeard;
    const { sampleRate, seconds } = recording;
    const { take, isKept } = await takes.keep({ ...made, sampleRate, seconds, finishReason, figures }, recording);
    if (!isKept) showProblem(t("problem.full"), "takes");
    else if (finishReason === "length") showProblem(t("ended.lengthWhy"), "settings");
    if (isOurs) deck.load(take, recording, placeIn(take, now));
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
