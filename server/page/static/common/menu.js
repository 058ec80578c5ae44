/** Menus that open below a button, one at a time; by mouse, touch and keyboard. */

import { find, icon, made } from "./dom.js";

const EDGE = 8; // CSS pixels that stay free around it

/**
 * Open a menu.
 *
 * @param {HTMLElement} button that it belongs to
 * @param {({label: string, act: () => void, icon?: string, isChecked?: boolean, isDisabled?: boolean,
 *   isDanger?: boolean} | null | {title: string})[]} entries null: a line between two groups
 */
export function openMenu(button, entries) {
  const menu = find("menu");
  if (menu.matches(":popover-open") && menu.owner === button) {
    menu.hidePopover();
    return;
  }
  menu.owner = button;
  menu.setAttribute("aria-label", button.getAttribute("aria-label") ?? button.textContent.trim());
  menu.replaceChildren(...entries.map((entry) => shown(entry, menu)));
  menu.showPopover();
  place(menu, button);
  button.setAttribute("aria-expanded", "true");
  items(menu)[0]?.focus();
}

/** A button that opens a menu, whose entries are made anew each time. */
export function opensMenu(button, entries) {
  button.setAttribute("aria-haspopup", "menu");
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => openMenu(button, entries()));
  return button;
}

/** Prepare the document's one menu. */
export function setUpMenu() {
  const menu = find("menu");
  menu.addEventListener("keydown", (event) => onKey(event, menu));
  menu.addEventListener("toggle", (event) => {
    if (event.newState === "closed") menu.owner?.setAttribute("aria-expanded", "false");
  });
  addEventListener("resize", () => menu.hidePopover());
}

const items = (menu) => [...menu.querySelectorAll("button:not(:disabled)")];

function shown(entry, menu) {
  if (entry === null) return made("div", { role: "separator" });
  if (entry.title) return made("div", { class: "menu-title", role: "presentation" }, entry.title);
  const act = () => {
    menu.hidePopover();
    menu.owner?.focus();
    entry.act();
  };
  const isChoice = entry.isChecked !== undefined;
  const mark = icon(isChoice ? (entry.isChecked ? "check" : "none") : (entry.icon ?? "none"));
  return made(
    "button",
    {
      type: "button",
      role: isChoice ? "menuitemradio" : "menuitem",
      "aria-checked": isChoice ? String(entry.isChecked) : null,
      tabindex: -1,
      disabled: entry.isDisabled ?? false,
      class: entry.isDanger ? "is-danger" : null,
      onclick: act,
    },
    mark,
    made("span", {}, entry.label),
  );
}

function place(menu, button) {
  const [at, size] = [button.getBoundingClientRect(), menu.getBoundingClientRect()];
  const left = Math.min(at.left, innerWidth - size.width - EDGE);
  const isBelow = at.bottom + size.height + EDGE <= innerHeight || at.top < size.height + EDGE;
  const top = isBelow ? Math.min(at.bottom + 4, innerHeight - size.height - EDGE) : at.top - size.height - 4;
  menu.style.left = `${Math.max(EDGE, left)}px`;
  menu.style.top = `${Math.max(EDGE, top)}px`;
}

function onKey(event, menu) {
  const all = items(menu);
  const now = all.indexOf(document.activeElement);
  const targets = { ArrowDown: now + 1, ArrowUp: now - 1 + all.length, Home: 0, End: all.length - 1 };
  if (event.key in targets) all[targets[event.key] % all.length].focus();
  else if (event.key === "Escape" || event.key === "Tab") {
    menu.hidePopover();
    menu.owner?.focus();
  } else return;
  event.preventDefault();
  event.stopPropagation();
}
