/** Stored voices, on the server. */

import { request } from "../common/api.js";

const VOICES = "v1/audio/voices";
const pathOf = (name) => `${VOICES}/${encodeURIComponent(name)}`;

/** @returns {Promise<{name: string, text: string?, seconds: number}[]>} */
export async function listVoices() {
  return (await (await request(VOICES)).json()).data;
}

/** The file of a voice, as it was uploaded. @returns {Promise<Blob>} */
export async function fetchClip(name) {
  return (await request(`${pathOf(name)}/clip`)).blob();
}

/** Store a voice. @throws {ApiError} 409: the name is taken */
export async function addVoice(name, clip, text) {
  const form = formOf(clip, text);
  form.set("name", name);
  await request(VOICES, { method: "POST", body: form });
}

/** Store a voice in the place of the one that has its name. */
export async function putVoice(name, clip, text) {
  await request(pathOf(name), { method: "PUT", body: formOf(clip, text) });
}

export async function removeVoice(name) {
  await request(pathOf(name), { method: "DELETE" });
}

/** Give a voice another name: it is stored under that, and then forgotten under this. */
export async function renameVoice(voice, name) {
  await addVoice(name, await fetchClip(voice.name), voice.text ?? "");
  await removeVoice(voice.name);
}

function formOf(clip, text) {
  const form = new FormData();
  form.set("text", text);
  form.set("audio", clip, clip.name ?? "clip.wav");
  return form;
}
