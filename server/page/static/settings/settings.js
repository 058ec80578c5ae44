/** How it is spoken: a form that is a view of the project's settings. What differs from the defaults is sent. */

import { find } from "../common/dom.js";
import { onLanguage } from "../common/i18n.js";

const PRESETS = {
  usual: {},
  steady: { temperature: "0.8", top_p: "0.85", top_k: "30" },
  lively: { temperature: "1.3", top_p: "0.95", top_k: "80" },
};
const DRAWN = ["temperature", "top_p", "top_k", "repetition_penalty"]; // what a preset sets
const CALLED = { instructions: "instruction" }; // by the server

export class Settings {
  #project;
  #form = find("settings-form");
  #showPanel;

  /** @param {(panel: string) => void} showPanel brings a panel into sight: "settings", or "script" with fields of the text */
  constructor(project, showPanel) {
    [this.#project, this.#showPanel] = [project, showPanel];
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
      this.#project.change({ settings: { ...Object.fromEntries(others), ...PRESETS[field.value] } });
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
    const isPreset = (preset) => JSON.stringify(sorted(drawn)) === JSON.stringify(sorted(PRESETS[preset]));
    this.#form.elements.preset.value = Object.keys(PRESETS).find(isPreset) ?? "own";
  }
}

const sorted = (object) => Object.entries(object).sort();
