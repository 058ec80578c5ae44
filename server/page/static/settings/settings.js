/** How it is spoken: a form that is a view of the project's settings. What differs from the defaults is sent. */

import { find } from "../common/dom.js";
import { onLanguage } from "../common/i18n.js";

const DRAWN = ["temperature", "top_p", "top_k", "repetition_penalty"]; // what a preset sets
const CALLED = { instructions: "instruction" }; // by the server

export class Settings {
  #project;
  #model;
  #form = find("settings-form");
  #showPanel;

  /**
   * @param {import("../model/model.js").Model} model whose defaults presets go by
   * @param {(panel: string) => void} showPanel brings a panel into sight: "settings", or "script" with fields of the text
   */
  constructor(project, model, showPanel) {
    [this.#project, this.#model, this.#showPanel] = [project, model, showPanel];
    model.addEventListener("change", () => this.#show());
    project.addEventListener("change", () => this.#show());
    onLanguage(() => this.#show());
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("input", ({ target }) => target.form === this.#form && this.#onInput(target));
    this.#form.addEventListener("reset", (event) => {
      event.preventDefault();
      const isText = ([name]) => this.#isInScript(this.#form.elements[name]);
      project.change({ settings: Object.fromEntries(Object.entries(project.state.settings).filter(isText)) });
    });
    this.#show();
  }

  get #fields() {
    return [...this.#form.elements].filter(({ name, disabled }) => name && name !== "preset" && !disabled);
  }

  /** Fields of a request. */
  get request() {
    const fields = {};
    for (const field of this.#fields) {
      if (field.type === "checkbox") fields[field.name] = field.checked;
      else if (field.value.trim()) fields[field.name] = field.type === "number" ? Number(field.value) : field.value;
    }
    return fields;
  }

  /** Whether every field holds what it may; shows the first that does not. */
  check() {
    const wrong = this.#fields.find((field) => !field.checkValidity());
    if (!wrong) return true;
    this.point(wrong.name);
    wrong.reportValidity();
    return false;
  }

  /** Mark a field as the one that is wrong. @returns {boolean} whether there is one of this name */
  point(name) {
    const field = this.#fields.find((each) => each.name === (CALLED[name] ?? name));
    if (!field) return false;
    this.#showPanel(this.#isInScript(field) ? "script" : "settings");
    const group = field.closest("details");
    if (group) group.open = true;
    field.setAttribute("aria-invalid", "true");
    field.focus();
    return true;
  }

  /** Whether a field stands with the text, since it says what is to be heard. */
  #isInScript(field) {
    return Boolean(field?.closest?.("#panel-script"));
  }

  set seed(seed) {
    this.#project.change({ settings: { ...this.#project.state.settings, seed: String(seed) } });
  }

  #onInput(field) {
    const { settings } = this.#project.state;
    if (field.name === "preset") {
      const others = Object.entries(settings).filter(([name]) => !DRAWN.includes(name));
      this.#project.change({ settings: { ...Object.fromEntries(others), ...presets(this.#model.sampling)[field.value] } });
      return;
    }
    const value = field.type === "checkbox" ? field.checked : field.value;
    const { [field.name]: _, ...others } = settings;
    const isUsual = field.type === "checkbox" ? field.checked : value === "" && !field.validity.badInput;
    this.#project.change({ settings: isUsual ? others : { ...others, [field.name]: value } }, `setting ${field.name}`);
  }

  #show() {
    const { settings } = this.#project.state;
    for (const field of this.#fields) {
      field.removeAttribute("aria-invalid");
      if (field.type === "checkbox") field.checked = settings[field.name] !== false;
      else if (field !== document.activeElement || field.value !== (settings[field.name] ?? "")) {
        if (!(field === document.activeElement && field.validity.badInput)) field.value = settings[field.name] ?? "";
      }
    }
    const drawn = Object.fromEntries(DRAWN.filter((name) => name in settings).map((name) => [name, settings[name]]));
    const known = presets(this.#model.sampling);
    const isPreset = (preset) => JSON.stringify(sorted(drawn)) === JSON.stringify(sorted(known[preset]));
    this.#form.elements.preset.value = Object.keys(known).find(isPreset) ?? "own";
  }
}

/** Settings of each delivery: the model's own defaults, and around them. */
function presets({ temperature, top_p, top_k }) {
  const around = (warmth, share, count) => ({
    temperature: rounded(temperature * warmth),
    top_p: rounded(Math.min(1, Math.max(0.05, top_p + share))),
    top_k: String(top_k > 0 ? Math.max(1, Math.round(top_k * count)) : top_k),
  });
  return { usual: {}, steady: around(0.73, -0.05, 0.6), lively: around(1.18, 0.05, 1.6) };
}

const rounded = (value) => String(Math.round(value * 100) / 100);
const sorted = (object) => Object.entries(object).sort();
