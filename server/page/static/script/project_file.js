/** A project on its way to somebody else: as a file, or as a link that holds all of it. */

import { readProject } from "./project.js";

const KIND = "moss-ttsd-project";
const LARGEST_LINK = 16_000; // characters; mail programs and chats cut what is longer
const IN_LINK = "s"; // name in the fragment, which no server sees

/** @returns {Blob} */
export function projectFile(state) {
  return new Blob([JSON.stringify({ kind: KIND, version: 1, ...state }, null, 2)], { type: "application/json" });
}

/** The project in a file's text, or null: it is none. */
export function readProjectFile(text) {
  try {
    const value = JSON.parse(text);
    return value?.kind === KIND ? readProject(value) : null;
  } catch {
    return null;
  }
}

/** @returns {Promise<string?>} the page's address with the project in it; null: it would be too long */
export async function linkTo(state) {
  const { title, turns, names, cast, settings } = state;
  const said = turns.map(({ speaker, words, pause }) => [speaker, words, pause]);
  const bytes = await through(
    new CompressionStream("deflate-raw"),
    new TextEncoder().encode(JSON.stringify([1, title, said, names, cast, settings])),
  );
  const letters = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  const packed = letters.replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  return packed.length > LARGEST_LINK ? null : `${location.href.split("#")[0]}#${IN_LINK}=${packed}`;
}

/** @returns {Promise<object?>} the project in a link's fragment; null: it holds none */
export async function readLink(fragment) {
  const packed = new URLSearchParams(fragment.replace(/^#/, "")).get(IN_LINK);
  if (!packed || packed.length > LARGEST_LINK) return null;
  try {
    const letters = atob(packed.replace(/-/g, "+").replace(/_/g, "/"));
    const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
    const text = new TextDecoder().decode(await through(new DecompressionStream("deflate-raw"), bytes));
    const [version, title, said, names, cast, settings] = JSON.parse(text);
    if (version !== 1) return null;
    const turns = said.map(([speaker, words, pause]) => ({ speaker, words, pause }));
    return readProject({ title, turns, names, cast, settings });
  } catch {
    return null; // cut off on its way, or never ours
  }
}

async function through(stream, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}
