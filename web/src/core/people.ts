// The directory: people of the organisation, each verified before the page hears of them. It is read whole and searched
// here: what somebody types into a search box, a patient's name for one, is nothing the server should hear.

import type { Person } from "../bridge/types";
import { CurbsideError } from "./errors";
import { decodeBase64url } from "./ids";
import type { OrganizationRules } from "./trust";
import type { Transport } from "./transport";
import type { Vault } from "./vault/vault";
import type { Views } from "./views";
import type { People as PeoplePage, Person as DirectoryPerson } from "./wire/bodies.generated";

/** Of fifty people each. */
const PAGES = 200;
/** Who is not among so many types more of the name. */
const SHOWN = 100;
/** For so long a search does not read the directory again. */
const FRESH_MS = 30_000;
/** But a search that found nobody reads it again after so long. */
const MISSED_MS = 500;

function fold(text: string): string {
  return text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
}

/** Whether each word of the query is in the name or the role. Accents and case do not matter. */
export function isMatch(person: { name: string; role: string }, query: string): boolean {
  const about = fold(`${person.name} ${person.role}`);
  return fold(query)
    .split(/\s+/)
    .every((word) => about.includes(word));
}

export class People {
  readonly #vault: Vault;
  readonly #transport: Transport;
  readonly #rules: OrganizationRules;
  readonly #views: Views;
  #pages: Promise<DirectoryPerson[]> | undefined;
  #readAt = 0;

  constructor(vault: Vault, transport: Transport, rules: OrganizationRules, views: Views) {
    this.#vault = vault;
    this.#transport = transport;
    this.#rules = rules;
    this.#views = views;
  }

  /** People with every word of `query` in name or role; all of them without one. Who cannot be verified is left out. */
  async find(query: string): Promise<Person[]> {
    const found = await this.#search(query, query === "");
    // Who has just joined is not in what was read before.
    const isOld = this.#transport.now() - this.#readAt > MISSED_MS;
    return found.length === 0 && isOld ? this.#search(query, true) : found;
  }

  async #search(query: string, anew: boolean): Promise<Person[]> {
    const found: Person[] = [];
    for (const person of await this.#read(anew)) {
      if (found.length === SHOWN) break;
      if (isMatch(person, query) && (await this.#isVerified(person))) found.push(this.#describe(person));
    }
    return found;
  }

  /** The whole directory; a search within the next seconds finds it here. */
  async #read(anew: boolean): Promise<DirectoryPerson[]> {
    const now = this.#transport.now();
    if (this.#pages === undefined || anew || now - this.#readAt > FRESH_MS) {
      this.#readAt = now;
      this.#pages = this.#fetch();
      this.#pages.catch(() => (this.#pages = undefined));
    }
    return this.#pages;
  }

  async #fetch(): Promise<DirectoryPerson[]> {
    const all: DirectoryPerson[] = [];
    let after = "";
    for (let page = 0; page < PAGES; page++) {
      const path = `/v1/people?after=${encodeURIComponent(after)}`;
      const { people, next } = await this.#transport.call<PeoplePage>("GET", path);
      all.push(...people);
      if (next === "") break;
      after = next;
    }
    return all;
  }

  #describe(person: DirectoryPerson): Person {
    return this.#views.personOf({ userId: person.user_id, name: person.name, role: person.role });
  }

  async #isVerified(person: DirectoryPerson): Promise<boolean> {
    const certificate = decodeBase64url(person.user_certificate);
    try {
      const verified = await this.#rules.chains.verifyUser(
        [certificate, decodeBase64url(person.enrolment_certificate)],
        Math.floor(this.#transport.trustedNow() / 1000),
      );
      const { userId, name, role } = verified;
      if (userId !== person.user_id || name !== person.name || role !== person.role) return false;
    } catch (error) {
      if (error instanceof CurbsideError) return false;
      throw error;
    }
    await this.#vault.transaction((rows) =>
      rows.savePerson({ user_id: person.user_id, name: person.name, role: person.role, certificate }),
    );
    return true;
  }
}
