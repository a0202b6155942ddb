/** A machine's saved state in a file of its own. */
import { closeSync, fdatasyncSync, fstatSync, openSync, readSync, renameSync, rmSync, writeSync } from 'node:fs';
import { hostError } from './block-file.ts';

export interface StateWriter {
  write(data: Uint8Array): void;
  /** Makes it durable under its name. */
  finish(): void;
  /** Leaves nothing behind. */
  abandon(): void;
}

/** The file has another name until it is whole. */
export function writeStateFile(path: string): StateWriter {
  const partial = `${path}.partial`;
  let file: number;
  try {
    file = openSync(partial, 'w', 0o600);
  } catch (error) {
    throw hostError(path, 'create', error);
  }
  let open = true;
  const close = (): void => {
    if (open) closeSync(file);
    open = false;
  };
  return {
    write(data) {
      try {
        for (let done = 0; done < data.length; ) done += writeSync(file, data, done, data.length - done);
      } catch (error) {
        throw hostError(path, 'write to', error);
      }
    },
    finish() {
      try {
        fdatasyncSync(file);
        close();
        renameSync(partial, path);
      } catch (error) {
        throw hostError(path, 'write to', error);
      }
    },
    abandon() {
      close();
      rmSync(partial, { force: true });
    },
  };
}

export interface StateReader {
  readonly size: number;
  /** Fills `data`; throws where the file ends before. */
  read(data: Uint8Array): void;
  close(): void;
}

const AHEAD = 1 << 20;

export function readStateFile(path: string): StateReader {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (error) {
    throw hostError(path, 'open', error);
  }
  const buffer = new Uint8Array(AHEAD);
  let from = 0;
  let end = 0;
  const fill = (target: Uint8Array): number => {
    try {
      return readSync(file, target, 0, target.length, null);
    } catch (error) {
      throw hostError(path, 'read from', error);
    }
  };
  return {
    size: fstatSync(file).size,
    read(data) {
      for (let done = 0; done < data.length; ) {
        if (from < end) {
          const part = buffer.subarray(from, Math.min(end, from + data.length - done));
          data.set(part, done);
          from += part.length;
          done += part.length;
          continue;
        }
        // Large pieces go where they belong at once.
        const rest = data.subarray(done);
        const count = rest.length >= AHEAD / 2 ? fill(rest) : fill(buffer);
        if (count === 0) throw new Error(`'${path}' is cut off`);
        if (rest.length >= AHEAD / 2) done += count;
        else {
          from = 0;
          end = count;
        }
      }
    },
    close: () => closeSync(file),
  };
}
