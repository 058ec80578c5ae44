/** The settings of a request, as far as they differ from the server's defaults. */

export class Settings extends EventTarget {
  #box = document.querySelector("#settings");
  #form = document.querySelector("#settings-form");

  /** @param {unknown} saved what `values` was before a reload */
  constructor(saved) {
    super();
    for (const [name, value] of Object.entries(saved ?? {})) {
      const field = this.#form.elements.namedItem(name);
      if (field?.type === "checkbox") field.checked = value === true;
      else if (field instanceof HTMLElement && field.name) field.value = String(value);
    }
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#form.addEventListener("input", () => this.#changed());
    this.#form.addEventListener("reset", () => setTimeout(() => this.#changed()));
  }

  get #fields() {
    return [...this.#form.elements].filter((field) => field.name);
  }

  /** Contents of all fields, by name. */
  get values() {
    return Object.fromEntries(
      this.#fields.map((field) => [field.name, field.type === "checkbox" ? field.checked : field.value]),
    );
  }

  /** Fields of the request. */
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
    const field = this.#fields.find((each) => each.name === name);
    if (!field) return false;
    this.#box.open = true;
    field.setAttribute("aria-invalid", "true");
    field.focus();
    return true;
  }

  set seed(seed) {
    this.#form.elements.seed.value = String(seed);
    this.#changed();
  }

  #changed() {
    for (const field of this.#fields) field.removeAttribute("aria-invalid");
    this.dispatchEvent(new Event("change"));
  }
}
