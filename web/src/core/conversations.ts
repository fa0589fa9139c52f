// Starting conversations and adding people: claim key packages, verify them, commit, and try again when somebody was
// faster.

import type { Connection } from "./connection";
import type { Effect } from "./effects";
import type { Engine } from "./engine";
import { CurbsideError, isCurbsideError } from "./errors";
import type { DeviceIdentity } from "./groups";
import { decodeBase64url } from "./ids";
import { verifyKeyPackage } from "./mls/device";
import type { Change, GroupRules } from "./mls/types";
import type { Transport } from "./transport";
import type { ClaimedKeyPackages, ConversationState } from "./wire/bodies.generated";
import { conversationTitle } from "./wire/content";
import { makeDirectPolicy, makeGroupPolicy, encodeGroupPolicy } from "./wire/group_policy";

const COMMIT_TRIES = 5;
const COMMIT_MS = 30_000;

export interface ConversationParts {
  readonly engine: Engine;
  readonly transport: Transport;
  readonly connection: Connection;
  readonly rules: GroupRules<DeviceIdentity>;
}

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: CurbsideError) => void;
}

export class Conversations {
  readonly #parts: ConversationParts;
  readonly #commits = new Map<string, Waiting>();

  constructor(parts: ConversationParts) {
    this.#parts = parts;
  }

  /** Commits that somebody waits for end with their entry in the log. */
  released(effects: readonly Effect[]): void {
    for (const effect of effects) {
      if (effect.kind !== "commit-settled") continue;
      const waiting = this.#commits.get(effect.conversation);
      this.#commits.delete(effect.conversation);
      if (effect.error === undefined) waiting?.resolve();
      else waiting?.reject(effect.error);
    }
  }

  /**
   * A conversation with these people; with one person and no title, the direct one if it exists already. Throws
   * `untrusted_device` (names the device), `not_found`, `peer_unavailable`.
   */
  async start(userIds: readonly string[], title: string): Promise<string> {
    const { engine, transport, connection } = this.#parts;
    const me = engine.me.userId;
    const others = [...new Set(userIds)].filter((userId) => userId !== me);
    const [first] = others;
    if (first === undefined) throw new CurbsideError("not_found", "Choose somebody to talk with.");
    const direct = others.length === 1 && title === "";
    const existing = direct ? await this.#findDirect(first) : undefined;
    if (existing !== undefined) return existing;
    let add = await this.#claim([...others, me]);
    const policy = direct ? makeDirectPolicy(me, first) : makeGroupPolicy(me);
    const wanted = { kind: policy.kind, policy: encodeGroupPolicy(policy), title };
    const request = await engine.create(wanted, transport.now());
    const id = request.conversation_id;
    try {
      await transport.call<ConversationState>("POST", "/v1/conversations", request);
    } catch (error) {
      await engine.discardConversation(id);
      throw error;
    }
    connection.follow(id);
    await this.#commitAgain(id, async () => {
      const change = { add };
      add = [];
      return change.add.length > 0 ? change : { add: await this.#claim([...others, me]) };
    });
    if (title !== "") {
      const { effects } = await engine.write(id, conversationTitle(title), transport.now());
      await connection.carryOut(effects);
    }
    return id;
  }

  /** Adds people to a group. Throws `rule_broken` (the group's policy), `untrusted_device`, `not_found`. */
  async addPeople(conversation: string, userIds: readonly string[]): Promise<void> {
    await this.#commitAgain(conversation, async () => {
      const present = await this.#parts.engine.groups.people(conversation);
      const missing = [...new Set(userIds)].filter((userId) => !present.has(userId));
      return missing.length === 0 ? undefined : { add: await this.#claim(missing) };
    });
    const { connection, engine, transport } = this.#parts;
    await connection.carryOut(await engine.repeatTitle(conversation, transport.now()));
  }

  /** Makes the change anew in each epoch until it is in the log. */
  async #commitAgain(conversation: string, makeChange: () => Promise<Change | undefined>): Promise<void> {
    for (let tries = 1; ; tries++) {
      const change = await makeChange();
      if (change === undefined) return;
      try {
        return await this.#commit(conversation, change);
      } catch (error) {
        const heals = isCurbsideError(error, "epoch_conflict") || isCurbsideError(error, "missing_devices");
        if (!heals || tries === COMMIT_TRIES) throw error;
      }
    }
  }

  async #commit(conversation: string, change: Change): Promise<void> {
    const { engine, connection } = this.#parts;
    if (!connection.isOnline) throw new CurbsideError("peer_unavailable");
    let timer: ReturnType<typeof setTimeout> | undefined;
    const settled = new Promise<void>((resolve, reject) => {
      this.#commits.set(conversation, { resolve, reject });
      const tooLate = new CurbsideError("peer_unavailable", "The change waits until the server can be reached.");
      timer = setTimeout(() => reject(tooLate), COMMIT_MS);
    });
    // Whoever waits below hears of a refusal; a refusal before that must not count as unheard.
    settled.catch(() => undefined);
    try {
      await connection.carryOut(await engine.commit(conversation, change));
      await settled;
    } finally {
      clearTimeout(timer);
      this.#commits.delete(conversation);
    }
  }

  async #findDirect(userId: string): Promise<string | undefined> {
    const { engine } = this.#parts;
    for (const row of engine.vault.rows.conversations()) {
      if (row.kind !== "direct" || row.alarm !== "") continue;
      const people = await engine.groups.people(row.id);
      if (people.size === 2 && people.has(userId)) return row.id;
    }
    return undefined;
  }

  /** A key package of each device of these people but this one, each verified. */
  async #claim(userIds: readonly string[]): Promise<Uint8Array[]> {
    const { engine, transport, rules } = this.#parts;
    const packages: Uint8Array[] = [];
    for (const userId of userIds) {
      const path = `/v1/people/${userId}/key-packages/claim`;
      const claimed = await transport.call<ClaimedKeyPackages>("POST", path);
      if (claimed.devices.length === 0 && userId !== engine.me.userId)
        throw new CurbsideError("not_found", "This person has no device that can be reached.");
      for (const device of claimed.devices) {
        if (device.device_id === engine.me.deviceId) continue;
        const keyPackage = decodeBase64url(device.key_package);
        await verifyKeyPackage(keyPackage, { userId, deviceId: device.device_id }, rules);
        packages.push(keyPackage);
      }
    }
    return packages;
  }
}
