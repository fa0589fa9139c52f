/** A file as SQLite needs it: the synchronous handle of OPFS (File System Standard), or anything of its shape. */
export interface SyncFile {
  read(buffer: Uint8Array<ArrayBuffer>, options: { at: number }): number;
  write(buffer: Uint8Array<ArrayBuffer>, options: { at: number }): number;
  truncate(size: number): void;
  flush(): void;
  getSize(): number;
  close(): void;
}

/** Where vaults live. */
export interface VaultFiles {
  /** Opens, and makes when absent. Only one handle of a file exists at a time. */
  open(name: string): Promise<SyncFile>;
  read(name: string): Promise<Uint8Array | undefined>;
  /** Durable when it returns; either the old or the new content is there after a crash. */
  replace(name: string, content: Uint8Array): Promise<void>;
  /** Nothing happens when it is absent. */
  remove(name: string): Promise<void>;
}

const HANDLE_TRIES = 20;
const HANDLE_WAIT_MS = 50;

/** The origin private file system. A file's handle may still be held for a moment by a Worker that just ended. */
export function opfsFiles(): VaultFiles {
  const find = async (name: string, create: boolean): Promise<FileSystemFileHandle> =>
    (await navigator.storage.getDirectory()).getFileHandle(name, { create });
  return {
    open: async (name) => openHandle(await find(name, true)),
    read: async (name) => {
      try {
        return new Uint8Array(await (await (await find(name, false)).getFile()).arrayBuffer());
      } catch (error) {
        if (error instanceof DOMException && error.name === "NotFoundError") return undefined;
        throw error;
      }
    },
    replace: async (name, content) => {
      const file = await find(name, true);
      // A writable swaps the file in one step when it is closed. Browsers without it write in place: content is small.
      if ("createWritable" in file) {
        const writable = await file.createWritable();
        await writable.write(Uint8Array.from(content));
        await writable.close();
        return;
      }
      const handle = await openHandle(file);
      handle.truncate(0);
      handle.write(Uint8Array.from(content), { at: 0 });
      handle.flush();
      handle.close();
    },
    remove: async (name) => {
      try {
        await (await navigator.storage.getDirectory()).removeEntry(name);
      } catch (error) {
        if (!(error instanceof DOMException && error.name === "NotFoundError")) throw error;
      }
    },
  };
}

/** TypeScript's page library leaves out what only Workers have. */
interface WorkerFileHandle {
  createSyncAccessHandle(): Promise<SyncFile>;
}

async function openHandle(file: FileSystemFileHandle): Promise<SyncFile> {
  for (let tries = 1; ; tries++) {
    try {
      return await (file as unknown as WorkerFileHandle).createSyncAccessHandle();
    } catch (error) {
      if (tries === HANDLE_TRIES || !(error instanceof DOMException)) throw error;
      await new Promise((resolve) => setTimeout(resolve, HANDLE_WAIT_MS));
    }
  }
}
