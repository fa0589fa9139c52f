// The vault's key file, `vault.wraps`: JSON with the vault key wrapped under the passphrase. The same file as the Python
// client's.

import { type WrapRecord, unwrap, wrap } from "../crypto/passphrase";
import { SecretBytes } from "../crypto/secret";
import { CurbsideError } from "../errors";
import { makeId } from "../ids";
import type { VaultFiles } from "./files";
import { type ModuleLoader, loadModule } from "./module";
import { VAULT_FILE, Vault } from "./vault";

const WRAPS_FILE = `${VAULT_FILE}.wraps`;
const VERSION = 1;
const KEY_BYTES = 32;

interface Wraps {
  readonly version: number;
  readonly vault_id: string;
  readonly wraps: readonly WrapRecord[];
}

export async function hasVault(files: VaultFiles): Promise<boolean> {
  return (await files.read(WRAPS_FILE)) !== undefined;
}

/** A new vault, its key wrapped under the passphrase. Throws `integrity` when there is one already. */
export async function createVault(files: VaultFiles, passphrase: string, load: ModuleLoader = loadModule): Promise<Vault> {
  if (await hasVault(files)) throw new CurbsideError("integrity", "There is a vault on this device already.");
  await eraseVault(files);
  const raw = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  const key = new SecretBytes(raw);
  raw.fill(0);
  try {
    const vaultId = makeId();
    const wraps: Wraps = { version: VERSION, vault_id: vaultId, wraps: [await wrap(key, passphrase, vaultId)] };
    await files.replace(WRAPS_FILE, new TextEncoder().encode(JSON.stringify(wraps, undefined, 1)));
    const vault = await Vault.open(files, key.reveal(), load);
    await vault.transaction((rows) => rows.putSetting("vault_id", vaultId));
    return vault;
  } finally {
    key.wipe();
  }
}

/** Throws `not_found`, `wrong_passphrase`, `integrity`. */
export async function unlockVault(files: VaultFiles, passphrase: string, load: ModuleLoader = loadModule): Promise<Vault> {
  const { vault_id, wraps } = parseWraps(await files.read(WRAPS_FILE));
  const key = await unwrap(wraps[0], passphrase, vault_id);
  try {
    return await Vault.open(files, key.reveal(), load);
  } finally {
    key.wipe();
  }
}

/** Deletes everything: the key file first, without which the rest is noise. */
export async function eraseVault(files: VaultFiles): Promise<void> {
  for (const name of [WRAPS_FILE, VAULT_FILE, `${VAULT_FILE}-wal`, `${VAULT_FILE}-journal`]) await files.remove(name);
}

function parseWraps(bytes: Uint8Array | undefined): Wraps {
  if (bytes === undefined) throw new CurbsideError("not_found", "There is no vault on this device.");
  try {
    const parsed = JSON.parse(new TextDecoder().decode(bytes)) as Wraps;
    if (parsed.version === VERSION && typeof parsed.vault_id === "string" && parsed.wraps.length > 0) return parsed;
  } catch {
    // Reported below like a file of another version.
  }
  throw new CurbsideError("integrity", "The vault's key file cannot be read.");
}
