// How hard a passphrase is to guess. Honest limits: it is judged in the app only, by a short list and simple patterns;
// a server that never learns passphrases cannot judge again. Twin of src/curbside/crypto/passphrase_rating.py.
//
// The text is read from left to right. A word that everybody tries first, the person's or organisation's name, a run
// ("1234", "aaaa", "qwer") or a piece that came before counts as one guess unit; so does any other single character.

import { MAXIMUM_CHARS, MINIMUM_CHARS, normalizePassphrase } from "./passphrase";

const ACCEPTABLE_UNITS = 11;
const SCORES = [
  [18, 4],
  [14, 3],
  [ACCEPTABLE_UNITS, 2],
  [7, 1],
] as const;
export const WORDS = `
  password passphrase passwort passcode kennwort secret welcome letmein login signin admin administrator
  curbside hospital clinic doctor nurse medical medicine patient physician ward surgery health healthcare
  monkey dragon football baseball basketball superman batman princess sunshine shadow master michael jordan
  jennifer charlie summer winter spring autumn iloveyou love freedom whatever trustno starwars pokemon computer
  internet google whatsapp facebook changeme default temporary testing correcthorsebatterystaple
  thequickbrownfoxjumpsoverthelazydog tobeornottobethatisthequestion maytheforcebewithyou openupthedoor
  lorem ipsum january february march april june july august september october november december monday tuesday
  wednesday thursday friday saturday sunday
`
  .trim()
  .split(/\s+/);
const ROWS = ["qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "yxcvbnm", "azertyuiop", "qsdfghjklm"];
const KEYS = ROWS.flatMap((row) => [row, [...row].reverse().join("")]);
const LEET: Readonly<Record<string, string>> = {
  "@": "a",
  "4": "a",
  "3": "e",
  "0": "o",
  "1": "i",
  $: "s",
  "5": "s",
  "!": "i",
  "7": "t",
};
const SEPARATORS = new Set(" -_.,+/");

/** score: 0 (first guess) to 4. hint: one sentence for the person, "" when all is well. */
export interface Rating {
  readonly score: number;
  readonly hint: string;
  readonly acceptable: boolean;
}

/** Judges a passphrase for a person of this name in this organisation. Throws `internal` when it is no Unicode text. */
export function ratePassphrase(passphrase: string, name: string, organization: string): Rating {
  if ([...passphrase].length > MAXIMUM_CHARS)
    return { score: 0, hint: `At most ${MAXIMUM_CHARS} characters.`, acceptable: false };
  const text = normalizePassphrase(passphrase);
  const personal = [name, organization].flatMap((part) => split(normalizePassphrase(part).toLowerCase()));
  const units = countUnits(text, personal);
  const score = SCORES.find(([least]) => units >= least)?.[1] ?? 0;
  const missing = MINIMUM_CHARS - [...text].length;
  if (missing > 0) {
    const more = missing === 1 ? "1 more character" : `${missing} more characters`;
    const hint = `${more}: four or five unrelated words are good.`;
    return { score: Math.min(score, 1), hint, acceptable: false };
  }
  if (units < ACCEPTABLE_UNITS) {
    const hint = "Too easy to guess: avoid names, well-known words and patterns; add unrelated words.";
    return { score, hint, acceptable: false };
  }
  if (score < 4)
    return { score, hint: "Good enough. One more unrelated word makes it strong.", acceptable: true };
  return { score, hint: "", acceptable: true };
}

/** Guess units of a normalised text, as the file says. */
export function countUnits(text: string, personal: readonly string[]): number {
  const plain = [...text.toLowerCase()].filter((char) => !SEPARATORS.has(char));
  const unleeted = plain.map((char) => LEET[char] ?? char);
  const words = [...WORDS, ...personal].map((word) => [...word]).filter((word) => word.length >= 3);
  let at = 0;
  let units = 0;
  while (at < plain.length) {
    at += Math.max(matchWord(plain, unleeted, at, words), matchRun(plain, at), matchRepeat(plain, at), 1);
    units += 1;
  }
  return units;
}

function split(text: string): string[] {
  return [...text].map((char) => (SEPARATORS.has(char) ? " " : char)).join("").split(" ");
}

function matchWord(
  plain: readonly string[],
  unleeted: readonly string[],
  at: number,
  words: readonly (readonly string[])[],
): number {
  const stands = (text: readonly string[], word: readonly string[]): boolean =>
    word.every((char, index) => text[at + index] === char);
  return words.reduce(
    (longest, word) =>
      word.length > longest && (stands(plain, word) || stands(unleeted, word)) ? word.length : longest,
    0,
  );
}

/** The length of a run of three or more: one character, neighbours in the alphabet, digits or on the keyboard. */
function matchRun(plain: readonly string[], at: number): number {
  let longest = 0;
  const code = (index: number): number => plain[index]?.codePointAt(0) ?? Number.NaN;
  for (const step of [0, 1, -1]) {
    let end = at + 1;
    while (code(end) - code(end - 1) === step) end += 1;
    longest = Math.max(longest, end - at);
  }
  for (const keys of KEYS) {
    let end = at + 2;
    while (end <= plain.length && keys.includes(plain.slice(at, end).join(""))) end += 1;
    longest = Math.max(longest, end - 1 - at);
  }
  return longest >= 3 ? longest : 0;
}

function matchRepeat(plain: readonly string[], at: number): number {
  const before = plain.slice(0, at).join("");
  let length = 0;
  while (at + length < plain.length && before.includes(plain.slice(at, at + length + 1).join(""))) length += 1;
  return length >= 3 ? length : 0;
}
