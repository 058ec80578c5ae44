/** What can be done with one turn, beside writing it. */

import { t } from "../common/i18n.js";

const PAUSES = [0, 0.3, 0.5, 1, 2, 4]; // seconds

/** Entries of a turn's menu. */
export function turnEntries(id, { project, editor, studio, deck }) {
  const { turns } = project;
  const i = turns.findIndex((turn) => turn.id === id);
  const isOff = !deck.take || studio.isBusy;
  return [
    { label: t("turn.againShort"), icon: "again", isDisabled: isOff, act: () => studio.again(id) },
    { label: t("turn.continue"), icon: "forward", isDisabled: isOff, act: () => studio.continueFrom(id) },
    null,
    { label: t("turn.up"), icon: "up", isDisabled: i === 0, act: () => editor.move(id, -1) },
    { label: t("turn.down"), icon: "down", isDisabled: i === turns.length - 1, act: () => editor.move(id, 1) },
    { label: t("turn.insert"), icon: "plus", act: () => editor.insertAfter(id) },
    { title: t("turn.pauseAfter") },
    ...PAUSES.map((pause) => ({
      label: pause ? t("seconds", { n: pause }) : t("turn.noPause"),
      isChecked: turns[i].pause === pause,
      act: () => project.changeTurn(id, { pause }),
    })),
  ];
}
