/** Keeps the reading place: remembers where a visible message stands, and puts it back after the list has changed. */

export interface Place {
  restore(): void;
}

export function keepPlace(scroller: HTMLElement, content: HTMLElement): Place | undefined {
  const edge = scroller.getBoundingClientRect().top;
  for (const element of content.querySelectorAll<HTMLElement>("[data-key]")) {
    const { top, bottom } = element.getBoundingClientRect();
    if (bottom <= edge) continue;
    return {
      restore() {
        if (!element.isConnected) return;
        const moved = element.getBoundingClientRect().top - top;
        if (moved !== 0) scroller.scrollTop += moved;
      },
    };
  }
  return undefined;
}
