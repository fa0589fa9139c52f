/** What a list of messages looks like: days, the first-unread divider, and bubbles that belong together. */

import type { LocalMessage } from "./merge";

export type TimelineItem =
  | { kind: "day"; key: string; at: number }
  | { kind: "unread"; key: string }
  | { kind: "message"; key: string; message: LocalMessage; startsGroup: boolean; endsGroup: boolean };

const GROUP_GAP = 5 * 60_000;

function sameDay(a: number, b: number): boolean {
  return new Date(a).toDateString() === new Date(b).toDateString();
}

function belongs(a: LocalMessage | undefined, b: LocalMessage | undefined): boolean {
  if (!a || !b || a.kind === "note" || b.kind === "note") return false;
  return a.sender.userId === b.sender.userId && a.isMine === b.isMine && b.at - a.at < GROUP_GAP && sameDay(a.at, b.at);
}

export function buildTimeline(messages: LocalMessage[], firstUnread: string | undefined): TimelineItem[] {
  const items: TimelineItem[] = [];
  messages.forEach((message, index) => {
    const before = messages[index - 1];
    const after = messages[index + 1];
    if (!before || !sameDay(before.at, message.at)) items.push({ kind: "day", key: `day-${message.id}`, at: message.at });
    if (message.id === firstUnread) items.push({ kind: "unread", key: "unread" });
    items.push({
      kind: "message",
      key: message.id,
      message,
      startsGroup: message.id === firstUnread || !belongs(before, message),
      endsGroup: after?.id === firstUnread || !belongs(message, after),
    });
  });
  return items;
}
