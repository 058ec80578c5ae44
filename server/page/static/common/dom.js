/** Elements, made without a line of HTML: what people write is text wherever it lands. */

const SVG = "http://www.w3.org/2000/svg";

export const find = (id) => document.getElementById(id);

/**
 * An element.
 *
 * @param {string} tag
 * @param {object} properties attributes by name; `onclick` and the like are listeners, booleans are set or left out
 * @param {...(Node|string|null)} children
 */
export function made(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "value") element.value = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** One of the drawings in `icons.svg`, which take the colour of the words around them. */
export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("class", "icon");
  drawing.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `page/icons.svg#${name}`);
  drawing.append(use);
  return drawing;
}

/** A button that is a drawing; `label` is what it is called, and what it shows when pointed at. */
export function iconButton(name, label, onclick, properties = {}) {
  return made(
    "button",
    { type: "button", class: "quiet", "aria-label": label, title: label, onclick, ...properties },
    icon(name),
  );
}

/** Give a button of the document another drawing and name. */
export function showIcon(button, name, label) {
  const use = button.querySelector("use");
  const href = `page/icons.svg#${name}`;
  if (use.getAttribute("href") !== href) use.setAttribute("href", href);
  button.setAttribute("aria-label", label);
  button.title = label;
}

/** Show a text, or hide the element where there is none. */
export function showText(element, text) {
  element.textContent = text ?? "";
  element.hidden = !text;
}

/** Show in `place` what is wrong with a form, and with which field of it, or that nothing is. */
export function showProblem(form, place, message, field) {
  showText(place, message);
  for (const each of form.elements) each.removeAttribute("aria-invalid");
  field?.setAttribute("aria-invalid", "true");
  field?.focus();
}

/** 1:05.3, or 1:02:05 where it is long. @param {number} digits behind the point */
export function clock(seconds, digits = 0) {
  const rounded = Number(Math.max(0, seconds).toFixed(digits));
  const [hours, minutes] = [Math.floor(rounded / 3600), Math.floor(rounded / 60) % 60];
  const rest = (rounded % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** Letters for what needs to differ from all others; plain HTTP has no `randomUUID`. */
export function newId() {
  return [...crypto.getRandomValues(new Uint32Array(2))].map((part) => part.toString(36)).join("");
}
