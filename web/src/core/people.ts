// The directory: people of the organisation, each verified before the page hears of them.

import type { Person } from "../bridge/types";
import { CurbsideError } from "./errors";
import { decodeBase64url } from "./ids";
import type { OrganizationRules } from "./trust";
import type { Transport } from "./transport";
import type { Vault } from "./vault/vault";
import type { Views } from "./views";
import type { People as PeoplePage, Person as DirectoryPerson } from "./wire/bodies.generated";

/** A person who is not found in so many pages types more of the name. */
const PAGES = 4;

export class People {
  readonly #vault: Vault;
  readonly #transport: Transport;
  readonly #rules: OrganizationRules;
  readonly #views: Views;

  constructor(vault: Vault, transport: Transport, rules: OrganizationRules, views: Views) {
    this.#vault = vault;
    this.#transport = transport;
    this.#rules = rules;
    this.#views = views;
  }

  /** People whose name begins with `query`. Who cannot be verified is left out. */
  async find(query: string): Promise<Person[]> {
    const found: Person[] = [];
    let after = "";
    for (let page = 0; page < PAGES; page++) {
      const path = `/v1/people?query=${encodeURIComponent(query)}&after=${encodeURIComponent(after)}`;
      const { people, next } = await this.#transport.call<PeoplePage>("GET", path);
      for (const person of people) if (await this.#isVerified(person)) found.push(this.#describe(person));
      if (next === "") break;
      after = next;
    }
    return found;
  }

  #describe(person: DirectoryPerson): Person {
    return this.#views.personOf({ userId: person.user_id, name: person.name, role: person.role });
  }

  async #isVerified(person: DirectoryPerson): Promise<boolean> {
    const certificate = decodeBase64url(person.user_certificate);
    try {
      const verified = await this.#rules.chains.verifyUser(
        [certificate, decodeBase64url(person.enrolment_certificate)],
        Math.floor(this.#transport.now() / 1000),
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
