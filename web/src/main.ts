/** The product: the page over the Worker that owns the vault. */

import { connectCore } from "./bridge/client";
import { start } from "./main-start";

start(connectCore());
