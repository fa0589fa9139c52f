/** Times, names and sizes as people write them. Pure; `now` is a parameter. */

import { t } from "./strings";

const DAY = 86_400_000;
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const shortWeekday = new Intl.DateTimeFormat(undefined, { weekday: "short" });
const shortDate = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const fullDate = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const fullDateYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

function daysAgo(at: number, now: number): number {
  return Math.round((new Date(now).setHours(0, 0, 0, 0) - new Date(at).setHours(0, 0, 0, 0)) / DAY);
}

export function timeOfDay(at: number): string {
  return clock.format(at);
}

/** For a list row: the time today, the weekday this week, else the date. */
export function rowTime(at: number, now: number): string {
  if (at === 0) return "";
  const days = daysAgo(at, now);
  if (days <= 0) return clock.format(at);
  if (days === 1) return t.conversation.yesterday;
  return days < 7 ? shortWeekday.format(at) : shortDate.format(at);
}

/** For a day separator. */
export function dayName(at: number, now: number): string {
  const days = daysAgo(at, now);
  if (days <= 0) return t.conversation.today;
  if (days === 1) return t.conversation.yesterday;
  if (days < 7) return weekday.format(at);
  return days < 300 ? fullDate.format(at) : fullDateYear.format(at);
}

export function exactTime(at: number): string {
  return full.format(at);
}

const TITLES = /^(dr|prof|mr|mrs|ms|mx|sr|br)\.?$/i;

/** One or two letters: first and last name, titles left out. */
export function initials(name: string): string {
  const words = name.split(/[\s-]+/).filter((word) => /^\p{L}/u.test(word) && !TITLES.test(word));
  const letters = [words[0], words.length > 1 ? words.at(-1) : undefined].map((word) => [...(word ?? "")][0] ?? "");
  return letters.join("").toLocaleUpperCase() || "?";
}

/** 0 to 7, always the same for the same id. */
export function tone(id: string): number {
  let sum = 7;
  for (const character of id) sum = (sum * 31 + (character.codePointAt(0) ?? 0)) >>> 0;
  return sum % 8;
}

export function fileSize(bytes: number): string {
  if (bytes < 1_000_000) return `${Math.max(1, Math.round(bytes / 1000))} kB`;
  return `${(bytes / 1_000_000).toFixed(1)} MB`;
}

export interface Segment {
  text: string;
  href?: string;
}

const LINK = /\b(?:https?:\/\/|www\.)[^\s<>"']+/gi;

/** Text cut into plain parts and links. A link is only ever shown: nothing is fetched for it. */
export function segments(text: string): Segment[] {
  const parts: Segment[] = [];
  let at = 0;
  for (const match of text.matchAll(LINK)) {
    const link = match[0].replace(/[.,;:!?)\]]+$/, "");
    if (match.index > at) parts.push({ text: text.slice(at, match.index) });
    parts.push({ text: link, href: /^http/i.test(link) ? link : `https://${link}` });
    at = match.index + link.length;
  }
  if (at < text.length) parts.push({ text: text.slice(at) });
  return parts;
}

const LONG_TEXT = 900;
const LONG_LINES = 16;

export function isLong(text: string): boolean {
  return text.length > LONG_TEXT || text.split("\n").length > LONG_LINES;
}

const dayAndTime = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", hour: "2-digit", minute: "2-digit" });

/** A day with its hour, for deadlines. */
export function exactDay(at: number): string {
  return dayAndTime.format(at);
}

const RIGHT_TO_LEFT = /[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u;

/** The direction of the first letter; undefined where there is none, so that the page's own direction holds. */
export function textDirection(text: string): "ltr" | "rtl" | undefined {
  const letter = /\p{L}/u.exec(text)?.[0];
  if (letter === undefined) return undefined;
  return RIGHT_TO_LEFT.test(letter) ? "rtl" : "ltr";
}
