/** Asks for the server's key, where it wants one. */

import { setKey } from "../common/api.js";
import { find } from "../common/dom.js";
import { t } from "../common/i18n.js";

let hasTried = false;

/** Show the form, and leave whoever writes elsewhere alone. */
export function showKeyForm() {
  find("key-hint").textContent = t(hasTried ? "key.wrong" : "key.kept");
  find("key-form").hidden = false;
}

/** Show it to whoever has just asked for what needs the key. */
export function askForKey() {
  showKeyForm();
  find("key").focus();
}

/** @param {() => void} enter is called once a key was given, right or wrong */
export function setUpKeyForm(enter) {
  find("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setKey(find("key").value.trim());
    hasTried = true;
    find("key").value = "";
    find("key-form").hidden = true;
    enter();
  });
}
