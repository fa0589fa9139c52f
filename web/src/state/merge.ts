/** Pure rules for the messages of one open conversation: order, replacement, the window that is drawn. */

import type { Message } from "../bridge/types";

/** A message shown before the Worker has answered. `preview` is an object URL of the picture on its way. */
export interface LocalMessage extends Message {
  isLocal?: boolean;
  preview?: string;
}

/** By place in the log; what waits comes last, in the order of writing. */
export function compareMessages(a: Message, b: Message): number {
  const left = a.sequence || Number.MAX_SAFE_INTEGER;
  const right = b.sequence || Number.MAX_SAFE_INTEGER;
  return left - right || a.at - b.at;
}

/** `known` with `fresh` put in: replaced by id, local stand-ins replaced by what they stood for, order kept. */
export function mergeMessages(known: LocalMessage[], fresh: Message[], oldest?: Message): LocalMessage[] {
  const byId = new Map<string, LocalMessage>(known.map((message) => [message.id, message]));
  for (const message of fresh) {
    const before = byId.get(message.id);
    const standIn = before ? undefined : findStandIn(byId.values(), message);
    if (standIn) byId.delete(standIn.id);
    const preview = before?.preview ?? standIn?.preview;
    if (!before && !standIn && oldest && message.sequence > 0 && compareMessages(message, oldest) < 0) continue;
    byId.set(message.id, preview ? { ...message, preview } : message);
  }
  return [...byId.values()].sort(compareMessages);
}

function findStandIn(messages: Iterable<LocalMessage>, fresh: Message): LocalMessage | undefined {
  if (!fresh.isMine) return undefined;
  for (const message of messages)
    if (message.isLocal && message.kind === fresh.kind && message.text === fresh.text) return message;
  return undefined;
}

export interface Window {
  start: number;
  end: number;
}

export const DRAWN = 120;
export const STEP = 40;

/** The newest part of `count` messages, or the part around `index`. */
export function windowAt(count: number, index?: number): Window {
  if (index === undefined) return { start: Math.max(0, count - STEP), end: count };
  const start = Math.max(0, index - STEP / 2);
  return { start, end: Math.min(count, start + DRAWN / 2) };
}

/** One step towards older messages; what falls out at the other end is no longer drawn. */
export function slideUp(window: Window, count: number): Window {
  const start = Math.max(0, window.start - STEP);
  return { start, end: Math.min(count, window.end, start + DRAWN) };
}

export function slideDown(window: Window, count: number): Window {
  const end = Math.min(count, window.end + STEP);
  return { start: Math.max(0, end - DRAWN, window.start), end };
}
