// Speech that is read while it is made, in plain JavaScript (Node.js 18 or later, no packages):
//   node examples/stream.mjs [out.wav ["[S1] ..."]]
// Writes stream.wav unless another file is named.
// MOSS_URL is the server (http://127.0.0.1:30000), MOSS_API_KEY its key, if it has one.
import { writeFile } from "node:fs/promises";

const url = process.env.MOSS_URL ?? "http://127.0.0.1:30000";
const [output = "stream.wav", script = "[S1] Did you hear that? [S2] No. What was it?"] = process.argv.slice(2);
const HEADER_BYTES = 44; // of the WAV in every event

/** The data of server-sent events, one after the other. */
async function* eventsOf(body) {
  let rest = "";
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const events = (rest + text).split("\n\n");
    rest = events.pop();
    for (const event of events) yield event.replace(/^data: /, "");
  }
}

/** `fetch`, whose own words for a server that is away are "fetch failed". */
async function ask(address, options) {
  try {
    return await fetch(address, options);
  } catch (error) {
    console.error(`error: ${url}: ${error.cause?.message ?? error.message}; is the server running? MOSS_URL names it`);
    process.exit(1);
  }
}

/** 16-bit samples of a script, chunk by chunk. */
async function* speak(text) {
  const response = await ask(`${url}/generate`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${process.env.MOSS_API_KEY ?? "none"}` },
    body: JSON.stringify({ text, stream: true, sampling_params: { max_new_tokens: 250, sampling_seed: 8 } }),
  });
  if (!response.ok) throw new Error(`HTTP ${response.status}: ${await response.text()}`);
  for await (const data of eventsOf(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    const reason = event.meta_info?.finish_reason;
    if (event.error || reason?.type === "abort") throw new Error((event.error ?? reason).message);
    if (event.text) yield Buffer.from(event.text, "base64").subarray(HEADER_BYTES);
  }
  throw new Error("the answer was cut off");
}

/** A WAV file of 16-bit mono samples. */
function wavOf(pcm, sampleRate = 24_000) {
  const header = Buffer.alloc(HEADER_BYTES);
  header.write("RIFF    WAVEfmt ", "latin1");
  header.writeUInt32LE(HEADER_BYTES - 8 + pcm.length, 4);
  header.writeUInt32LE(16, 16); // bytes of this part of the header
  header.writeUInt16LE(1, 20); // PCM
  header.writeUInt16LE(1, 22); // channels
  header.writeUInt32LE(sampleRate, 24);
  header.writeUInt32LE(2 * sampleRate, 28);
  header.writeUInt16LE(2, 32); // bytes a sample
  header.writeUInt16LE(16, 34); // bits a sample
  header.write("data", 36, "latin1");
  header.writeUInt32LE(pcm.length, 40);
  return Buffer.concat([header, pcm]);
}

const started = performance.now();
const chunks = [];
for await (const pcm of speak(script)) {
  if (!chunks.length) console.log(`first audio after ${Math.round(performance.now() - started)} ms`);
  chunks.push(pcm); // or play it
}
await writeFile(output, wavOf(Buffer.concat(chunks)));
