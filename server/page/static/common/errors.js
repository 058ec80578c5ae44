/** What the server refuses, in the reader's language where the reason is known, else in the server's own words. */

import { t } from "./i18n.js";

const BY_CODE = [
  "unknown_voice",
  "voice_exists",
  "too_many_voices",
  "bad_name",
  "queue_full",
  "rate_limit_exceeded",
  "shutting_down",
  "body_too_large",
  "broken_off",
  "no_design",
  "no_text",
];

/** @param {import("./api.js").ApiError | Error} error */
export function wordsFor(error) {
  if (error.status === undefined) return t("error.page", { why: error.message });
  let words;
  if (BY_CODE.includes(error.code)) words = t(`error.${error.code}`);
  else if (error.status === 0) words = error.message || t("error.unreachable");
  else words = plain(error.message) || t("error.status", { status: String(error.status) });
  return error.retryAfter ? `${words} ${t("error.again", { seconds: error.retryAfter })}` : words;
}

/** A sentence without the name of the field in front, which the page does not show. */
function plain(message) {
  const words = message.replace(/^(?:audio|name|text|input|mode|seed|voice|url|file|description): /, "");
  return words && words[0].toUpperCase() + words.slice(1);
}
