/** Puts the page up over a client: the bridge to the Worker, or the preview's pretend one. */

import { mount } from "svelte";
import App from "./App.svelte";
import type { Client } from "./state/client";
import { language } from "./ui/strings";

/** Takes an invite out of the address at once, so that its secret stays neither on the screen nor behind the back button.
 *  The browser's list of visited pages has it nevertheless; once used, an invite opens nothing. */
export function takeInvite(): string {
  if (!location.hash.startsWith("#/join/")) return "";
  const link = location.href;
  history.replaceState(null, "", location.pathname);
  return link;
}

export function start(client: Client): void {
  const target = document.getElementById("app");
  if (!target) throw new Error("the page has no #app");
  document.documentElement.lang = language;
  const invite = takeInvite();
  target.replaceChildren();
  mount(App, { target, props: { client, invite } });
}
