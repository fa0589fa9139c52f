// The core as the page sees it: phases (empty, locked, open) and the requests of bridge/types.ts.

import type {
  AppState,
  ConversationRow,
  Core,
  CoreEvent,
  InvitePreview,
  MessagePage,
  OpenedImage,
  Person,
  PhotoInput,
  Problem,
} from "../bridge/types";
import type { Surroundings } from "./account";
import type { Status } from "./connection";
import { CurbsideError } from "./errors";
import { problemOf } from "./problem";
import type { Session } from "./session";
import type { Vault } from "./vault/vault";
import { eraseVault, hasVault, unlockVault } from "./vault/wraps";
import type { Session as ServerSession } from "./wire/bodies.generated";

/** MLS, certificates and OPAQUE: a locked screen needs none of it, so it comes after that was shown. */
const loadAccount = () => import("./account");
const loadSession = () => import("./session");

const JOIN_STEPS = 5;
const UNLOCK_STEPS = 2;

export class App implements Core {
  readonly #around: Surroundings;
  readonly #tell: (event: CoreEvent) => void;
  #state: AppState = { phase: "starting", connection: "offline", waiting: 0 };
  #session: Session | undefined;
  /** join, unlock and lock do not overlap. */
  #busy = false;
  #previewed = "";

  constructor(around: Surroundings, tell: (event: CoreEvent) => void) {
    this.#around = around;
    this.#tell = (event) => {
      tell(event);
      if (event.kind === "messages" || event.kind === "discarded") this.#countWaiting();
    };
  }

  /** Looks whether there is a vault. `missing`: why this browser cannot keep one. */
  async start(missing?: Problem): Promise<void> {
    if (missing !== undefined) return this.#change({ phase: "unsupported", problem: missing });
    try {
      this.#change({ phase: (await hasVault(this.#around.files)) ? "locked" : "empty" });
    } catch (error) {
      return this.#change({ phase: "unsupported", problem: problemOf(error) });
    }
    // Fetched while the person types; whether it arrives is asked again when it is needed.
    void Promise.all([loadAccount(), loadSession()]).catch(() => undefined);
  }

  async state(): Promise<AppState> {
    return this.#state;
  }

  poke(): void {
    this.#session?.poke();
  }

  #change(change: Partial<AppState>, without?: "problem"): void {
    const next: AppState = { ...this.#state, ...change };
    if (without !== undefined) delete next[without];
    if (JSON.stringify(next) === JSON.stringify(this.#state)) return;
    this.#state = next;
    this.#tell({ kind: "state", state: next });
  }

  #countWaiting(): void {
    if (this.#session !== undefined) this.#change({ waiting: this.#session.engine.vault.rows.countWaiting() });
  }

  // --- joining, unlocking, locking ---

  async previewInvite(link: string): Promise<InvitePreview> {
    const { fetchInvite } = await loadAccount();
    const { invite } = await fetchInvite(link, this.#around);
    this.#previewed = invite.organization;
    return { organization: invite.organization, role: invite.role, expiresAt: invite.expiresAt };
  }

  async ratePassphrase(
    passphrase: string,
    name: string,
  ): Promise<{ score: number; hint: string; acceptable: boolean }> {
    const { ratePassphrase } = await import("./crypto/passphrase_rating");
    return ratePassphrase(passphrase, name, this.#previewed);
  }

  async join(input: { link: string; name: string; passphrase: string }): Promise<void> {
    await this.#alone("empty", async () => {
      const progress = (done: number, text: string): void =>
        this.#tell({ kind: "progress", task: "join", done, total: JOIN_STEPS, text });
      const { signUp } = await loadAccount();
      const { vault, session } = await signUp(input, this.#around, progress).catch((error) => this.#stayLocked(error));
      await this.#open(vault, input.passphrase, session);
      progress(JOIN_STEPS, "Ready");
    });
  }

  /** Opens the vault; or, when it is open and the server's session ended, signs in again. Throws `wrong_passphrase`. */
  async unlock(passphrase: string): Promise<void> {
    if (this.#session !== undefined) return this.#session.signInAgain(passphrase);
    await this.#alone("locked", async () => {
      const progress = (done: number, text: string): void =>
        this.#tell({ kind: "progress", task: "unlock", done, total: UNLOCK_STEPS, text });
      progress(0, "Opening your messages");
      const vault = await unlockVault(this.#around.files, passphrase, this.#around.load);
      const session = vault.rows.findSetting("joined") === "yes" ? undefined : await this.#finishJoining(vault, passphrase);
      progress(1, "Connecting");
      await this.#open(vault, passphrase, session);
      progress(UNLOCK_STEPS, "Ready");
    });
  }

  /** A sign-up whose end nobody heard left its vault: unlocking it finds out. */
  async #stayLocked(error: unknown): Promise<never> {
    if (await hasVault(this.#around.files)) this.#change({ phase: "locked" });
    throw error;
  }

  /** A sign-up that the server never took left a vault without an account: nothing is lost with it. */
  async #finishJoining(vault: Vault, passphrase: string): Promise<ServerSession> {
    try {
      const { finishJoining } = await loadAccount();
      const session = await finishJoining(vault, passphrase, this.#around);
      if (session !== undefined) return session;
    } catch (error) {
      vault.close();
      throw error;
    }
    vault.close();
    await eraseVault(this.#around.files);
    this.#change({ phase: "empty" });
    throw new CurbsideError("not_found", "Joining was interrupted. Open your invite again.");
  }

  async #open(vault: Vault, passphrase: string, session?: ServerSession): Promise<void> {
    try {
      const [{ loadIdentity }, { Session }] = await Promise.all([loadAccount(), loadSession()]);
      const identity = await loadIdentity(vault, this.#around.clock);
      const status = (connection: Status, problem?: CurbsideError): void => this.#connected(connection, problem);
      const { clock } = this.#around;
      this.#session = new Session({ vault, identity, clock, tell: this.#tell, status }, passphrase, session);
      const me = this.#session.me();
      const waiting = vault.rows.countWaiting();
      this.#change({ phase: "open", me, organization: identity.organization, waiting }, "problem");
      this.#session.start();
    } catch (error) {
      this.#session = undefined;
      vault.close();
      throw error;
    }
  }

  #connected(connection: Status, problem?: CurbsideError): void {
    if (problem === undefined) this.#change({ connection }, connection === "online" ? "problem" : undefined);
    else this.#change({ connection, problem: problemOf(problem) });
  }

  async lock(): Promise<void> {
    const session = this.#session;
    if (session === undefined) return;
    this.#session = undefined;
    this.#state = { phase: "locked", connection: "offline", waiting: 0 };
    await session.close();
    this.#tell({ kind: "state", state: this.#state });
  }

  async #alone(phase: "empty" | "locked", work: () => Promise<void>): Promise<void> {
    if (this.#busy) throw new CurbsideError("vault_busy");
    if (this.#state.phase !== phase) throw new CurbsideError(phase === "empty" ? "integrity" : "not_found");
    this.#busy = true;
    try {
      await work();
    } finally {
      this.#busy = false;
    }
  }

  // --- everything else needs an open vault ---

  get #at(): Session {
    if (this.#session === undefined) throw new CurbsideError("vault_locked");
    return this.#session;
  }

  async people(query: string): Promise<Person[]> {
    return this.#at.people.find(query);
  }

  async conversations(): Promise<ConversationRow[]> {
    return this.#at.views.conversations();
  }

  async conversation(id: string): Promise<ConversationRow> {
    return this.#at.views.conversation(id);
  }

  async startConversation(input: { userIds: string[]; title: string }): Promise<string> {
    return this.#at.conversations.start(input.userIds, input.title);
  }

  async addPeople(conversationId: string, userIds: string[]): Promise<void> {
    return this.#at.conversations.addPeople(conversationId, userIds);
  }

  async messages(conversationId: string, input: { before?: string; limit: number }): Promise<MessagePage> {
    return this.#at.views.page(conversationId, input.limit, input.before);
  }

  async sendText(conversationId: string, text: string, inReplyTo?: string): Promise<string> {
    return this.#at.sendText(conversationId, text, inReplyTo);
  }

  async sendPhoto(conversationId: string, input: PhotoInput): Promise<string> {
    return this.#at.sendPhoto(conversationId, input);
  }

  async retry(messageId: string): Promise<void> {
    return this.#at.retry(messageId);
  }

  async discard(messageId: string): Promise<void> {
    return this.#at.discard(messageId);
  }

  async openImage(messageId: string, index: number): Promise<OpenedImage> {
    return this.#at.openImage(messageId, index);
  }

  async markRead(conversationId: string): Promise<void> {
    return this.#at.markRead(conversationId);
  }

  async saveDraft(conversationId: string, text: string): Promise<void> {
    return this.#at.engine.saveDraft(conversationId, text);
  }

  async safetyNumber(conversationId: string): Promise<string> {
    return this.#at.safetyNumber(conversationId);
  }
}
