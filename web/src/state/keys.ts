/** Which key does what, wherever the focus is. Typing is never taken for a command. */

export type Shortcut = "lock" | "back" | "search" | "new" | "shortcuts";

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

export function shortcutOf(event: KeyboardEvent): Shortcut | undefined {
  if ((event.ctrlKey || event.metaKey) && event.shiftKey && event.key.toLowerCase() === "l") return "lock";
  if (event.ctrlKey || event.metaKey || event.altKey) return undefined;
  if (event.key === "Escape") return "back";
  if (isTyping(event.target)) return undefined;
  if (event.key === "/") return "search";
  if (event.key === "?") return "shortcuts";
  return event.key === "n" || event.key === "N" ? "new" : undefined;
}
