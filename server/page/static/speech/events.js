/** Speech as it is made, from either of the server's two doors, in pieces of one kind. */

import { ApiError, post } from "../common/api.js";

const USUAL_RATE = 24000; // Hz; the speech API says its own in a header, `/generate` in each of its WAVs
const WAV_HEADER_BYTES = 44;

/**
 * A piece: `{sampleRate, pcm}` with 16-bit samples, or at the end `{finishReason, turns}`, where `turns` is when each
 * was spoken, `[{speaker, start, end, text}]` in seconds, or null: the server does not say.
 *
 * Aborting ends the speech on the server too.
 *
 * @throws {ApiError} also when it broke off
 */
export async function* speak(body, signal) {
  const fields = { model: "moss-ttsd", ...body, response_format: "pcm", stream_format: "sse" };
  const response = await post("v1/audio/speech", fields, signal);
  const sampleRate = Number(response.headers.get("X-Sample-Rate")) || USUAL_RATE;
  let turns = null;
  yield* untilWhole(async function* () {
    for await (const event of eventsOf(response)) {
      if (Array.isArray(event.turns)) turns = event.turns;
      if (event.type === "speech.audio.delta") yield { sampleRate, pcm: samplesOf(bytesOf(event.audio)) };
      else if (event.type === "speech.audio.done") yield { finishReason: event.finish_reason ?? "stop", turns };
      else if (event.type === "error") throw failureOf(event.error);
    }
  });
}

/** The same of `/generate`, which knows what an earlier part is. */
export async function* generate(body, signal) {
  const response = await post("generate", { ...body, stream: true }, signal);
  yield* untilWhole(async function* () {
    for await (const event of eventsOf(response)) {
      if (event.error) throw failureOf(event.error);
      const meta = event.meta_info ?? {};
      if (meta.finish_reason?.type === "abort") {
        const { status_code: status, message, code } = meta.finish_reason;
        throw new ApiError(status ?? 500, message ?? "", { code });
      }
      if (event.text) {
        const wav = bytesOf(event.text);
        const sampleRate = new DataView(wav.buffer).getUint32(24, true);
        yield { sampleRate, pcm: samplesOf(wav.subarray(WAV_HEADER_BYTES)) };
      }
      if (meta.finish_reason) yield { finishReason: meta.finish_reason.type, turns: meta.turns ?? null };
    }
  });
}

/** What `pieces` yields, or an error where it ends without its end. */
async function* untilWhole(pieces) {
  try {
    for await (const piece of pieces()) {
      yield piece;
      if (piece.finishReason) return;
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // TypeError: the connection was lost
  }
  throw new ApiError(0, "", { code: "broken_off" });
}

/** What ended a stream. */
const failureOf = (error) => new ApiError(500, error?.message ?? "", error ?? {});

async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.startsWith("data: ") ? block.slice("data: ".length) : ""; // else a comment
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

export const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
const samplesOf = (bytes) => new Int16Array(bytes.slice().buffer, 0, bytes.length >> 1);
