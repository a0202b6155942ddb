/** Files that monitor commands write: whole, or not at all. */
import { open, rename, stat, unlink } from 'node:fs/promises';
import { MonitorError } from '../monitor/machine-control.ts';

/**
 * Writes `parts` to a file beside `path` and gives it the name when all is written, so a failure leaves what was
 * there. Where `path` is a device or FIFO, it is written in place.
 */
export async function writeFileParts(path: string, parts: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
  if (path === '') throw new MonitorError("Parameter 'filename' is empty");
  const existing = await stat(path).catch(() => undefined);
  const inPlace = existing !== undefined && !existing.isFile();
  const target = inPlace ? path : `${path}.part-${process.pid}`;
  try {
    const file = await open(target, 'w');
    try {
      for await (const part of parts) await file.writeFile(part);
    } finally {
      await file.close();
    }
    if (!inPlace) await rename(target, path);
  } catch (cause) {
    if (!inPlace) await unlink(target).catch(() => {});
    if (cause instanceof MonitorError) throw cause;
    throw new MonitorError(`Could not write '${path}': ${(cause as Error).message}`);
  }
}
