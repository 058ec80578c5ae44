/** The server's API, by addresses relative to the page: it works behind any path prefix. */

const TURNS_MS = 10_000; // after which nobody waits for times of turns
const KEY = "moss-ttsd-key";

/** What the server refused, in its own words, or that it could not be reached (`status` 0). */
export class ApiError extends Error {
  constructor(status, message, { param = null, code = null } = {}, retryAfter = null) {
    super(message);
    this.status = status;
    this.param = param; // the field that it is about
    this.code = typeof code === "string" ? code : null; // for programs
    this.retryAfter = retryAfter; // seconds
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

let tellLocked = () => {};

/** Call `tell` whenever the server wants another key for what somebody has asked for. */
export function onLocked(tell) {
  tellLocked = tell;
}

/**
 * @param {object} options of `fetch`; `isByItself`: nobody has asked for it, so nobody is asked for a key
 * @returns {Promise<Response>} of status 2xx
 * @throws {ApiError}
 */
export async function request(path, { isByItself = false, ...options } = {}) {
  const headers = new Headers(options.headers);
  try {
    if (currentKey) headers.set("Authorization", `Bearer ${currentKey}`);
  } catch {
    tellLocked();
    throw new ApiError(401, "No header can hold this key.");
  }
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, error instanceof TypeError ? "" : String(error.message));
  }
  if (response.status === 401 && !isByItself) tellLocked();
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response) {
  const body = await response.json().catch(() => null);
  const error = body?.error;
  const said = error?.message ?? error ?? body?.detail;
  const message = typeof said === "string" ? said : "";
  const retryAfter = secondsOf(response.headers.get("Retry-After"));
  return new ApiError(response.status, message, error ?? {}, retryAfter);
}

/** Of `Retry-After`, which is a number or a date. */
function secondsOf(value) {
  const seconds = Number(value ?? NaN);
  const left = Number.isNaN(seconds) ? (Date.parse(value) - Date.now()) / 1000 : seconds;
  return left > 0 ? Math.ceil(left) : null;
}

/** Send JSON. */
export function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

/** What the server is and has to do: its model's name, or null, and its load as SGLang tells it, or null. */
export async function serverState() {
  const [models, loads] = await Promise.all([
    request("v1/models", { isByItself: true }).then((response) => response.json()),
    request("v1/loads?include=core", { isByItself: true }).then(
      (response) => response.json(),
      () => null,
    ),
  ]);
  return { model: models?.data?.[0]?.id ?? null, loads: loads?.loads ?? null };
}

/**
 * When turns are heard in samples, as the server tells it.
 *
 * @param {Int16Array} pcm
 * @param {{rate: number, script: string, isCut: boolean}} about it: in Hz; what is spoken in it; whether it ends before
 * @returns {Promise<object[]?>} `[{speaker, start, end, text}]`; null: the server does not say
 */
export async function turnsIn(pcm, { rate, script, isCut }) {
  const body = new FormData();
  body.append("audio", new Blob([pcm]));
  body.append("script", script);
  body.append("rate", String(rate));
  body.append("is_cut", String(isCut));
  const options = { method: "POST", body, signal: AbortSignal.timeout(TURNS_MS), isByItself: true };
  const answer = request("page/turns", options);
  return answer
    .then((response) => response.json())
    .then((told) => (Array.isArray(told?.turns) ? told.turns : null))
    .catch(() => null);
}

/**
 * A file of samples that are here already.
 *
 * @param {Int16Array} pcm
 * @param {number} sampleRate in Hz
 * @param {string} format as the server calls it
 * @returns {Promise<Blob>}
 */
export async function encode(pcm, sampleRate, format) {
  const options = { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: pcm };
  return (await request(`page/encode?format=${format}&rate=${sampleRate}`, options)).blob();
}
