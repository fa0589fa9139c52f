/** `?scene=` chooses what the pretend core pretends; everything else is the real page. */

import { start } from "../src/main-start";
import { PretendCore } from "./pretend-core";
import { isScene } from "./scenes";

const parameters = new URLSearchParams(location.search);
const asked = parameters.get("scene") ?? "list";
if (parameters.has("rtl")) document.documentElement.dir = "rtl";
if (parameters.has("large")) document.documentElement.style.fontSize = "200%";
const pretend = new PretendCore(isScene(asked) ? asked : "list");
start({ core: pretend, subscribe: (listener) => pretend.subscribe(listener) });
Object.assign(window, { pretend });
