/** The server's API, by addresses relative to the page: it works behind any path prefix. */

const KEY = "moss-ttsd-key";

/** What the server refused, in its own words, or that it could not be reached (`status` 0). */
export class ApiError extends Error {
  constructor(status, message, { param = null, retryAfter = null } = {}) {
    super(retryAfter ? `${message} (try again in ${retryAfter} s)` : message);
    this.status = status;
    this.param = param; // the field that it is about
  }
}

/** Kept as long as the tab is open, and nowhere else. */
export function setKey(key) {
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // No storage: the key is asked for again after a reload.
  }
  currentKey = key;
}

let currentKey = "";
try {
  currentKey = sessionStorage.getItem(KEY) ?? "";
} catch {
  // No storage.
}

async function request(path, options = {}) {
  const headers = new Headers(options.headers);
  try {
    if (currentKey) headers.set("Authorization", `Bearer ${currentKey}`);
  } catch {
    throw new ApiError(401, "No header can hold this key.");
  }
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, error instanceof TypeError ? "The server cannot be reached." : String(error.message));
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response) {
  const body = await response.json().catch(() => null);
  const error = body?.error;
  const said = error?.message ?? error ?? body?.detail;
  const message = typeof said === "string" ? said : `The server answered ${response.status}.`;
  const retryAfter = secondsOf(response.headers.get("Retry-After"));
  return new ApiError(response.status, message, { param: error?.param, retryAfter });
}

/** Of `Retry-After`, which is a number or a date. */
function secondsOf(value) {
  const seconds = Number(value ?? NaN);
  const left = Number.isNaN(seconds) ? (Date.parse(value) - Date.now()) / 1000 : seconds;
  return left > 0 ? Math.ceil(left) : null;
}

/** @returns {Promise<{name: string, text: string?, seconds: number}[]>} */
export async function listVoices() {
  const response = await request("v1/audio/voices");
  return (await response.json()).data;
}

/** Store a voice. @param {FormData} form `name`, `audio`, `text` */
export async function addVoice(form) {
  await request("v1/audio/voices", { method: "POST", body: form });
}

export async function removeVoice(name) {
  await request(`v1/audio/voices/${encodeURIComponent(name)}`, { method: "DELETE" });
}

function askSpeech(body, signal) {
  return request("v1/audio/speech", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model: "moss-ttsd", ...body }),
    signal,
  });
}

/**
 * Speech as it is made: `{sampleRate, pcm}` with 16-bit samples. Aborting ends it on the server too.
 *
 * @throws {ApiError} also when it broke off
 */
export async function* speak(body, signal) {
  const response = await askSpeech({ ...body, response_format: "pcm", stream_format: "sse" }, signal);
  const sampleRate = Number(response.headers.get("X-Sample-Rate")) || 24000;
  let isWhole = false;
  try {
    for await (const event of eventsOf(response)) {
      if (event.type === "speech.audio.delta") yield { sampleRate, pcm: samplesOf(event.audio) };
      else if (event.type === "speech.audio.done") isWhole = true;
      else if (event.type === "error") throw new ApiError(500, event.error?.message ?? "The speech broke off.");
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // TypeError: the connection was lost
  }
  if (!isWhole) throw new ApiError(0, "The connection broke off; what came is kept.");
}

/** A whole file in a format that the server encodes. @returns {Promise<Blob>} */
export async function speakFile(body, format, signal) {
  const response = await askSpeech({ ...body, response_format: format }, signal);
  return response.blob();
}

async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) yield JSON.parse(block.slice("data: ".length));
  }
}

function samplesOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Int16Array(bytes.buffer, 0, bytes.length >> 1);
}
