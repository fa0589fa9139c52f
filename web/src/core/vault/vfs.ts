import { FacadeVFS } from "@journeyapps/wa-sqlite/src/FacadeVFS.js";
import {
  SQLITE_CANTOPEN,
  SQLITE_IOERR,
  SQLITE_IOERR_SHORT_READ,
  SQLITE_OK,
} from "@journeyapps/wa-sqlite/src/sqlite-constants.js";
import type { SyncFile, VaultFiles } from "./files";

/** What SQLite keeps beside a database. Both are opened with it, because opening is asynchronous and SQLite is not. */
const SUFFIXES = ["", "-journal", "-wal"] as const;

/**
 * SQLite's files on synchronous handles: one database under its own name, so that Python opens a copy of it as it is.
 * One connection only; Web Locks keep other tabs away (the handles are exclusive as well). A file of no bytes counts as
 * absent. Temporary files are refused: `temp_store=memory` needs none.
 */
export class VaultVfs extends FacadeVFS {
  readonly #files: ReadonlyMap<string, SyncFile>;
  readonly #open = new Map<number, SyncFile>();

  private constructor(name: string, module: object, files: ReadonlyMap<string, SyncFile>) {
    super(name, module);
    this.#files = files;
  }

  static async create(name: string, module: object, storage: VaultFiles, database: string): Promise<VaultVfs> {
    const files = new Map<string, SyncFile>();
    for (const suffix of SUFFIXES) files.set(database + suffix, await storage.open(database + suffix));
    return new VaultVfs(name, module, files);
  }

  closeFiles(): void {
    for (const file of this.#files.values()) file.close();
  }

  override jOpen(name: string | null, id: number, flags: number, outFlags: DataView): number {
    const file = this.#files.get(name ?? "");
    if (file === undefined) return SQLITE_CANTOPEN;
    this.#open.set(id, file);
    outFlags.setInt32(0, flags, true);
    return SQLITE_OK;
  }

  override jClose(id: number): number {
    this.#open.delete(id);
    return SQLITE_OK;
  }

  override jDelete(name: string): number {
    return this.#attempt(this.#files.get(name), (file) => {
      file.truncate(0);
      file.flush();
    });
  }

  override jAccess(name: string, _flags: number, result: DataView): number {
    return this.#attempt(this.#files.get(name), (file) => result.setInt32(0, file.getSize() > 0 ? 1 : 0, true));
  }

  override jRead(id: number, buffer: Uint8Array<ArrayBuffer>, offset: number): number {
    const target = buffer.subarray();
    let count = 0;
    const status = this.#attempt(this.#open.get(id), (file) => {
      count = file.read(target, { at: offset });
    });
    if (status !== SQLITE_OK || count === target.byteLength) return status;
    target.fill(0, count);
    return SQLITE_IOERR_SHORT_READ;
  }

  override jWrite(id: number, buffer: Uint8Array<ArrayBuffer>, offset: number): number {
    const source = buffer.subarray();
    return this.#attempt(this.#open.get(id), (file) => {
      if (file.write(source, { at: offset }) !== source.byteLength) throw new Error("short write");
    });
  }

  override jTruncate(id: number, size: number): number {
    return this.#attempt(this.#open.get(id), (file) => file.truncate(size));
  }

  override jSync(id: number): number {
    return this.#attempt(this.#open.get(id), (file) => file.flush());
  }

  override jFileSize(id: number, size: DataView): number {
    return this.#attempt(this.#open.get(id), (file) => size.setBigInt64(0, BigInt(file.getSize()), true));
  }

  #attempt(file: SyncFile | undefined, work: (file: SyncFile) => void): number {
    if (file === undefined) return SQLITE_IOERR;
    try {
      work(file);
      return SQLITE_OK;
    } catch {
      return SQLITE_IOERR;
    }
  }
}
