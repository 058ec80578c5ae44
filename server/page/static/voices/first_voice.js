/** Where the server keeps no voices yet: three ways to begin, which are a clip, a recording, and neither. */

import { find } from "../common/dom.js";
import { canRecord } from "./microphone.js";

/**
 * @param {Library} library
 * @param {() => void} speak the script, with the model's own voices
 */
export function setUpFirstVoice(library, speak) {
  const show = () => (find("first-voice").hidden = !library.isLoaded || library.names.length > 0);
  find("first-record").hidden = !canRecord;
  find("first-clip").addEventListener("click", () => openForm(find("voice-audio")));
  find("first-record").addEventListener("click", () => openForm(find("record")));
  find("first-speak").addEventListener("click", speak);
  library.addEventListener("change", show);
  show();
}

/** Open the form for voices, and use one of its controls. */
function openForm(control) {
  find("add-voice").open = true;
  find("voice-form").scrollIntoView({ block: "nearest" });
  control.focus();
  control.click();
}
