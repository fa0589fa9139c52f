/** Which rows a search keeps. Pure. */

import type { ConversationRow } from "../../bridge/types";

function fold(text: string): string {
  return text.normalize("NFD").replace(/\p{M}/gu, "").toLocaleLowerCase();
}

/** Every word must begin a word of the title or of a member's name. Accents and case do not matter. */
export function filterRows(rows: ConversationRow[], query: string): ConversationRow[] {
  const words = fold(query).split(/\s+/).filter(Boolean);
  if (words.length === 0) return rows;
  return rows.filter((row) => {
    const names = fold([row.title, ...row.members.map((person) => person.name)].join(" ")).split(/[\s,.-]+/);
    return words.every((word) => names.some((name) => name.startsWith(word)));
  });
}
