/** Touch gestures on a bubble: swipe towards its end to reply, hold for the menu. Both have a tap way as well. */

const FIRE_PX = 64;
const MOST_PX = 84;
const START_PX = 12;
const HOLD_MS = 450;

interface Gestures {
  onswipe: () => void;
  onhold: () => void;
  disabled?: boolean;
}

/** How far the finger went towards the end of the line: mirrored in right-to-left text. */
export function forwardDistance(dx: number, rightToLeft: boolean): number {
  return Math.max(0, Math.min(MOST_PX, rightToLeft ? -dx : dx));
}

class Tracker {
  gestures: Gestures;
  #node: HTMLElement;
  #start: { x: number; y: number; id: number } | undefined;
  #swiping = false;
  #forward = 0;
  #hold = 0;

  constructor(node: HTMLElement, gestures: Gestures) {
    this.#node = node;
    this.gestures = gestures;
  }

  #isRightToLeft(): boolean {
    return getComputedStyle(this.#node).direction === "rtl";
  }

  #shift(distance: number): void {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    this.#node.style.setProperty("--swipe", `${this.#isRightToLeft() ? -distance : distance}px`);
  }

  reset(): void {
    clearTimeout(this.#hold);
    this.#start = undefined;
    this.#swiping = false;
    if (this.#forward !== 0) this.#shift(0);
    this.#forward = 0;
    this.#node.classList.remove("swiping");
  }

  down(event: PointerEvent): void {
    if (event.pointerType === "mouse" || this.gestures.disabled) return;
    this.#start = { x: event.clientX, y: event.clientY, id: event.pointerId };
    this.#hold = window.setTimeout(() => {
      this.reset();
      navigator.vibrate?.(10);
      this.gestures.onhold();
    }, HOLD_MS);
  }

  move(event: PointerEvent): void {
    if (!this.#start || event.pointerId !== this.#start.id) return;
    const dx = event.clientX - this.#start.x;
    const dy = event.clientY - this.#start.y;
    if (Math.hypot(dx, dy) > START_PX) clearTimeout(this.#hold);
    if (!this.#swiping && Math.abs(dx) > START_PX && Math.abs(dx) > Math.abs(dy) * 1.5) {
      this.#swiping = true;
      this.#node.classList.add("swiping");
      this.#node.setPointerCapture(event.pointerId);
    }
    if (!this.#swiping) return;
    const before = this.#forward;
    this.#forward = forwardDistance(dx, this.#isRightToLeft());
    if (before < FIRE_PX && this.#forward >= FIRE_PX) navigator.vibrate?.(10);
    this.#shift(this.#forward);
  }

  up(): void {
    const fire = this.#swiping && this.#forward >= FIRE_PX;
    this.reset();
    if (fire) this.gestures.onswipe();
  }

  menu(event: Event): void {
    if (window.getSelection()?.toString()) return;
    event.preventDefault();
    this.reset();
    this.gestures.onhold();
  }
}

/** Svelte action. */
export function bubbleGestures(node: HTMLElement, given: Gestures): { update(next: Gestures): void; destroy(): void } {
  const tracker = new Tracker(node, given);
  const ended = new AbortController();
  const options = { signal: ended.signal };
  node.addEventListener("pointerdown", (event) => tracker.down(event), options);
  node.addEventListener("pointermove", (event) => tracker.move(event), options);
  node.addEventListener("pointerup", () => tracker.up(), options);
  node.addEventListener("pointercancel", () => tracker.reset(), options);
  node.addEventListener("contextmenu", (event) => tracker.menu(event), options);
  return {
    update(next) {
      tracker.gestures = next;
    },
    destroy() {
      tracker.reset();
      ended.abort();
    },
  };
}
