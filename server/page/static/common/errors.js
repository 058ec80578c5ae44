/** What the server refuses, in the reader's language: by its code, or its status and the server's own words. */

import { has, t } from "./i18n.js";

/** @param {import("./api.js").ApiError | Error} error */
export function wordsFor(error) {
  if (error.status === undefined) return t("error.page", { why: error.message });
  const words = t(keyOf(error), { why: plain(error.message), status: String(error.status) });
  return error.retryAfter ? `${words} ${t("error.again", { seconds: error.retryAfter })}` : words;
}

function keyOf({ status, code, message }) {
  if (has(`error.${code}`)) return `error.${code}`;
  if (status === 0) return message ? "error.refused" : "error.unreachable";
  if (status === 401) return "error.key";
  if (!message) return "error.status";
  return status < 500 ? "error.refused" : "error.server_failed";
}

/** A sentence without the name of the field in front, which the page does not show. */
function plain(message) {
  const words = message.replace(/^(?:[a-z_]+(?:\.\w+)*): /, "");
  return words && words[0].toUpperCase() + words.slice(1);
}
