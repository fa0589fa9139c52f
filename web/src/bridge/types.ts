/** The only door between the page and the core Worker: what the page may ask, and what it is told. Plain data, no classes. */

export type Phase = "starting" | "other-tab" | "unsupported" | "empty" | "locked" | "open";
export type Connection = "offline" | "connecting" | "online";
export type Delivery = "sending" | "sent" | "delivered" | "read" | "failed";

export interface Problem {
  code: string;
  title: string;
  detail: string;
  nextStep: string;
  members?: Record<string, unknown>;
}

/** Everything the page needs to choose a screen. */
export interface AppState {
  phase: Phase;
  connection: Connection;
  /** Why, when phase is "unsupported" or unlocking failed. */
  problem?: Problem;
  me?: Person;
  organization?: string;
  /** Messages that wait to be sent. */
  waiting: number;
}

export interface Person {
  userId: string;
  name: string;
  role: string;
  isMe?: boolean;
  isBot?: boolean;
}

export interface InvitePreview {
  organization: string;
  role: string;
  /** Unix seconds. */
  expiresAt: number;
}

/** A row of the conversation list, newest first. */
export interface ConversationRow {
  id: string;
  kind: "direct" | "group";
  title: string;
  members: Person[];
  lastText: string;
  /** Unix milliseconds; 0 when nothing was said yet. */
  lastAt: number;
  lastIsMine: boolean;
  lastDelivery?: Delivery;
  unread: number;
  draft: string;
  /** Set when the conversation stopped because something was refused, e.g. a device that nobody vouches for. */
  alarm?: Problem;
}

export interface Attachment {
  index: number;
  kind: "image" | "file";
  name: string;
  mediaType: string;
  size: number;
  width?: number;
  height?: number;
  /** A small preview out of the encrypted message: a data-free image as bytes (JPEG). */
  thumbnail?: Uint8Array<ArrayBuffer>;
}

export interface Message {
  /** Row id in the vault, stable from the moment of sending. */
  id: string;
  conversationId: string;
  /** Place in the log; 0 while it waits. */
  sequence: number;
  sender: Person;
  isMine: boolean;
  /** "note" is a line about the conversation: somebody was added, the title changed. */
  kind: "text" | "photo" | "file" | "note" | "unknown";
  text: string;
  attachments: Attachment[];
  inReplyTo?: { id: string; sender: string; text: string };
  /** Unix milliseconds. */
  at: number;
  delivery?: Delivery;
  /** 0..1 while an attachment goes up. */
  progress?: number;
  problem?: Problem;
}

export interface MessagePage {
  messages: Message[];
  hasOlder: boolean;
  /** Id of the first unread message, if any. */
  firstUnread?: string;
}

/** An image decoded, checked and drawn anew inside the Worker. */
export interface OpenedImage {
  bytes: ArrayBuffer;
  mediaType: "image/jpeg" | "image/png" | "image/webp";
  width: number;
  height: number;
}

export interface PhotoInput {
  /** What the camera or the picker gave; it is drawn anew, without metadata, before anything else happens. */
  blob: Blob;
  caption: string;
}

/** Requests: each method is one message to the Worker and one answer; a failure rejects with a Problem. */
export interface Core {
  state(): Promise<AppState>;
  previewInvite(link: string): Promise<InvitePreview>;
  join(input: { link: string; name: string; passphrase: string }): Promise<void>;
  /** 0 to 4, and one sentence; runs on the device only. */
  ratePassphrase(passphrase: string, name: string): Promise<{ score: number; hint: string; acceptable: boolean }>;
  unlock(passphrase: string): Promise<void>;
  lock(): Promise<void>;
  people(query: string): Promise<Person[]>;
  conversations(): Promise<ConversationRow[]>;
  conversation(id: string): Promise<ConversationRow>;
  startConversation(input: { userIds: string[]; title: string }): Promise<string>;
  addPeople(conversationId: string, userIds: string[]): Promise<void>;
  messages(conversationId: string, input: { before?: string; limit: number }): Promise<MessagePage>;
  sendText(conversationId: string, text: string, inReplyTo?: string): Promise<string>;
  sendPhoto(conversationId: string, input: PhotoInput): Promise<string>;
  retry(messageId: string): Promise<void>;
  discard(messageId: string): Promise<void>;
  openImage(messageId: string, index: number): Promise<OpenedImage>;
  markRead(conversationId: string): Promise<void>;
  saveDraft(conversationId: string, text: string): Promise<void>;
  /** Hex digits to compare by voice, in groups of five. */
  safetyNumber(conversationId: string): Promise<string>;
}

/** What the Worker tells without being asked. Lists are read again by the page; events only say what changed. */
export type CoreEvent =
  | { kind: "state"; state: AppState }
  | { kind: "conversations" }
  | { kind: "messages"; conversationId: string; messages: Message[] }
  | { kind: "discarded"; conversationId: string; messageId: string }
  | { kind: "progress"; task: "join" | "unlock" | "catch-up"; done: number; total: number; text: string }
  | { kind: "notice"; problem: Problem };
