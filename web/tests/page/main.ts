// The bridge and the Worker without the user interface, for tests/e2e/test_web_core.py. Built apart from the product:
// nothing of this is in what ships.

import { connectCore } from "../../src/bridge/client";
import type { CoreEvent } from "../../src/bridge/types";

const events: CoreEvent[] = [];
const client = connectCore();
client.subscribe((event) => events.push(event));
Object.assign(globalThis, { core: client.core, events });
