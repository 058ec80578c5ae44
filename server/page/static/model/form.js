/** The form that goes with the model: fields that it takes, where they belong, in words that fit it. */

import { find } from "../common/dom.js";
import { setModel } from "../common/i18n.js";

const SAMPLING = ["temperature", "top_p", "top_k", "repetition_penalty"];

/**
 * Show it. Elements with `data-takes` are there only for models that take what it names, those with `data-offers` only
 * where the server offers it; the fields in them are switched off with them, so that they are neither sent nor checked.
 *
 * @param {import("./model.js").Model} model
 */
export function showForm(model) {
  for (const part of document.querySelectorAll("[data-takes], [data-offers]")) {
    const { takes, offers } = part.dataset;
    part.hidden = takes === undefined ? !model.offers(offers) : !model.takes(takes);
    for (const field of part.querySelectorAll("input, select, textarea")) field.disabled = part.hidden;
  }
  find("set-instruction").required = model.needs("instruction");
  const { elements } = find("settings-form");
  for (const name of SAMPLING) elements[name].placeholder = String(model.sampling[name]);
  document.body.classList.toggle("plain", !model.isDialogue);
  placeFields(model);
  find("text-label").hidden = !model.needs("instruction"); // else the heading says it
  find("model-name").textContent = model.title;
  document.title = `${model.title} Studio`;
  setModel(model.name);
}

/** Beside a dialogue they are settings; where they say what is to be heard, they stand with its text. */
function placeFields(model) {
  const fields = find("turn-fields");
  if (model.isDialogue) find("settings-form").prepend(fields);
  else if (model.needs("instruction")) find("text-label").before(fields);
  else find("text").after(fields);
}
