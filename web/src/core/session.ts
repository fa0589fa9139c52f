// One unlocked vault at work: its engine, its connection, and what the page is told. Made at unlock, closed at lock.

import type { CoreEvent, OpenedImage, Person, PhotoInput } from "../bridge/types";
import { type Identity, proverOf, signIn } from "./account";
import { openAttachment } from "./attachments";
import { Connection, type Status } from "./connection";
import { Conversations } from "./conversations";
import { hashFile, makeKey, openBytes, sealBytes } from "./crypto/stream_aead";
import { SecretBytes } from "./crypto/secret";
import type { Effect } from "./effects";
import { Engine } from "./engine";
import { CurbsideError } from "./errors";
import { Groups } from "./groups";
import { redrawOwn, redrawReceived } from "./media";
import { People } from "./people";
import { problemOf } from "./problem";
import { type Clock, Transport } from "./transport";
import { computeSafetyNumber } from "./trust";
import { Uploads } from "./uploads";
import type { Vault } from "./vault/vault";
import { Views } from "./views";
import type { Session as ServerSession } from "./wire/bodies.generated";
import * as content from "./wire/content";

const SIGN_OUT_MS = 400;

export interface SessionParts {
  readonly vault: Vault;
  readonly identity: Identity;
  readonly clock: Clock;
  readonly tell: (event: CoreEvent) => void;
  readonly status: (status: Status, problem?: CurbsideError) => void;
}

export class Session {
  readonly engine: Engine;
  readonly views: Views;
  readonly people: People;
  readonly conversations: Conversations;
  readonly #parts: SessionParts;
  readonly #transport: Transport;
  readonly #connection: Connection;
  readonly #uploads: Uploads;
  /** Only until it was used to sign in. */
  #passphrase: string | undefined;

  constructor(parts: SessionParts, passphrase: string, session?: ServerSession) {
    const { vault, identity, clock } = parts;
    this.#parts = parts;
    this.#passphrase = session === undefined ? passphrase : undefined;
    const groups = new Groups(vault, identity.keys, identity.rules);
    this.engine = new Engine(vault, groups, identity.owner);
    this.views = new Views(vault, groups, identity.owner);
    this.#transport = new Transport(identity.server, proverOf(identity.apiKey), clock);
    this.#transport.session = session;
    identity.rules.setClock(() => Math.floor(this.#transport.trustedNow() / 1000));
    const carryOut = (effects: readonly Effect[]): Promise<void> => this.#connection.carryOut(effects);
    this.#uploads = new Uploads({ engine: this.engine, transport: this.#transport, hash: hashFile, carryOut });
    this.#connection = new Connection({
      engine: this.engine,
      transport: this.#transport,
      uploads: this.#uploads,
      signIn: () => this.#signIn(),
      events: { released: (effects) => this.#released(effects), status: parts.status },
    });
    const { engine } = this;
    const [transport, connection, rules] = [this.#transport, this.#connection, identity.rules];
    this.conversations = new Conversations({ engine, transport, connection, rules });
    this.people = new People(vault, this.#transport, identity.rules, this.views);
  }

  start(): void {
    this.#connection.start();
  }

  /** Something says that it is worth trying again. */
  poke(): void {
    this.#connection.poke();
  }

  /** The passphrase was asked for again, because the server's session ended. Throws `wrong_passphrase`. */
  async signInAgain(passphrase: string): Promise<void> {
    await this.#begin(passphrase);
    this.#connection.poke();
  }

  /** Disconnects, closes the vault, and wipes what can be wiped. */
  async close(): Promise<void> {
    this.#passphrase = undefined;
    this.#uploads.stop();
    this.#connection.stop();
    if (this.#transport.session !== undefined) {
      const ended = this.#transport.call("DELETE", "/v1/session", undefined, { signal: AbortSignal.timeout(SIGN_OUT_MS) });
      await ended.catch(() => undefined);
      this.#transport.session = undefined;
    }
    this.#parts.vault.close();
    this.#parts.identity.wipe();
  }

  async #signIn(): Promise<void> {
    if (this.#passphrase === undefined) throw new CurbsideError("not_authenticated");
    await this.#begin(this.#passphrase);
    this.#passphrase = undefined;
  }

  async #begin(passphrase: string): Promise<void> {
    const signingIn = signIn(this.#parts.vault, this.#transport, passphrase);
    this.#transport.signingIn = signingIn;
    await signingIn;
  }

  // --- what the page asks ---

  async sendText(conversation: string, text: string, inReplyTo?: string): Promise<string> {
    const { rows } = this.#parts.vault;
    const replied = inReplyTo === undefined ? undefined : rows.findMessage(inReplyTo);
    const options = replied === undefined || replied.mimi_id.length === 0 ? {} : { inReplyTo: replied.mimi_id };
    return this.#write(conversation, content.text(text, options));
  }

  async #write(conversation: string, message: content.Message): Promise<string> {
    const { id, effects } = await this.engine.write(conversation, message, this.#transport.now());
    await this.#connection.carryOut(effects);
    return id;
  }

  /** Drawn anew without metadata, sealed, kept, uploaded, then told. Throws `malformed` (not a picture), `too_large`. */
  async sendPhoto(conversation: string, input: PhotoInput): Promise<string> {
    const picture = await redrawOwn(input.blob);
    const key = makeKey();
    const sealed = await sealBytes(key, picture.data);
    const external = content.blob("", {
      contentType: "image/jpeg",
      size: picture.data.length,
      key: Uint8Array.from(key.reveal()),
      contentHash: await hashFile(sealed),
    });
    key.wipe();
    const { width, height } = picture;
    const thumbnail = content.singlePart("image/jpeg", picture.thumbnail);
    const message = content.photo(external, { width, height, caption: input.caption, thumbnail });
    const id = await this.engine.writeWithUpload(conversation, message, sealed, this.#transport.now());
    this.#released([{ kind: "changed", conversation, message: id }]);
    this.#uploads.start();
    return id;
  }

  async retry(id: string): Promise<void> {
    await this.#connection.carryOut(await this.engine.retry(id));
    this.#uploads.start();
  }

  async discard(id: string): Promise<void> {
    const conversationId = await this.engine.discard(id);
    this.#parts.tell({ kind: "discarded", conversationId, messageId: id });
    this.#parts.tell({ kind: "conversations" });
  }

  async markRead(conversation: string): Promise<void> {
    await this.#connection.carryOut(await this.engine.markRead(conversation, this.#transport.now()));
  }

  /** Fetched, checked against the message's hash, opened, checked by content and drawn anew. */
  async openImage(id: string, index: number): Promise<OpenedImage> {
    const { vault } = this.#parts;
    const row = vault.rows.findMessage(id);
    if (row === undefined || row.content.length === 0) throw new CurbsideError("not_found");
    const found = content.attachments(content.decode(row.content))[index];
    if (found === undefined) throw new CurbsideError("not_found");
    const crypto = {
      hashFile,
      openBytes: (key: Uint8Array, size: number, sealed: Uint8Array) => openBytes(new SecretBytes(key), size, sealed),
    };
    const waiting = vault.rows.findUpload(id)?.ciphertext;
    const plain = waiting
      ? await crypto.openBytes(found.part.key, found.part.size, waiting)
      : await openAttachment(found.part, vault, this.#transport, crypto);
    const { data, width, height } = await redrawReceived(plain);
    plain.fill(0);
    return { bytes: data.buffer, mediaType: "image/jpeg", width, height };
  }

  async safetyNumber(conversation: string): Promise<string> {
    const people = await this.engine.groups.people(conversation);
    return computeSafetyNumber([...people.values()]);
  }

  me(): Person {
    return this.views.me();
  }

  // --- what the page is told ---

  #released(effects: readonly Effect[]): void {
    this.conversations.released(effects);
    const touched = new Map<string, Set<string>>();
    let listChanged = false;
    for (const effect of effects) {
      if (effect.kind === "arrived" || effect.kind === "changed") {
        const ids = touched.get(effect.conversation) ?? new Set();
        if (effect.message !== undefined) ids.add(effect.message);
        touched.set(effect.conversation, ids);
      }
      if (effect.kind === "notice") this.#parts.tell({ kind: "notice", problem: problemOf(effect.error) });
      listChanged ||= ["arrived", "changed", "joined", "commit-settled"].includes(effect.kind);
    }
    for (const [conversationId, ids] of touched) {
      const messages = [...ids].map((id) => this.views.findMessage(id)).filter((message) => message !== undefined);
      this.#parts.tell({ kind: "messages", conversationId, messages });
    }
    if (listChanged) this.#parts.tell({ kind: "conversations" });
  }
}
