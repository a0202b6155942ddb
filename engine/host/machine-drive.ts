/** Opens the image of a drive as its configuration says: read-only, write-through, without discards, or as a snapshot. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { FilterNode, ReadOnlyFilter, WriteThroughNode } from '../block/filters.ts';
import type { BlockNode } from '../block/node.ts';
import { openImage, probeFormat } from '../block/open.ts';
import { createQcow2 } from '../block/qcow2/create.ts';
import type { DriveConfig } from '../contract/machine-config.ts';
import { nodeBlockHost } from './block-file.ts';

/** `discard=ignore`: the guest may discard, and nothing comes of it. */
class KeepNode extends FilterNode {
  override discard(): void {}
  override writeZeroes(offset: number, length: number): void {
    this.inner.writeZeroes(offset, length, false);
  }
}

/** Throws a `BlockError` that says which file and why. `close` flushes and never throws. */
export function openDrive(config: DriveConfig): { readonly disk: BlockNode; close(): void } {
  const { cache, readOnly } = config;
  const format = config.format === 'auto' ? undefined : config.format;
  const unmap = config.discard === 'unmap';
  let node: BlockNode;
  let temporary: string | undefined;
  if (config.snapshot) {
    temporary = mkdtempSync(join(tmpdir(), 'vivarium-snapshot-'));
    try {
      node = overlay(config, format, join(temporary, 'overlay.qcow2'));
    } catch (error) {
      rmSync(temporary, { recursive: true, force: true });
      throw error;
    }
  } else node = openImage(nodeBlockHost, config.file, { format, write: !readOnly, cache, unmap });
  let disk = node;
  if (readOnly) disk = new ReadOnlyFilter(disk);
  else {
    if (!unmap) disk = new KeepNode(disk);
    if (cache === 'writethrough') disk = new WriteThroughNode(disk);
  }
  return {
    disk,
    close() {
      try {
        node.close();
      } catch (error) {
        process.stderr.write(`vivarium: ${config.file}: ${(error as Error).message}\n`);
      }
      if (temporary !== undefined) rmSync(temporary, { recursive: true, force: true });
    },
  };
}

/** An empty qcow2 image over the drive's own. */
function overlay(config: DriveConfig, format: string | undefined, path: string): BlockNode {
  const below = openImage(nodeBlockHost, config.file, { format, lock: 'share' });
  const { size } = below;
  below.close();
  const probe = nodeBlockHost.openFile(config.file, { lock: 'share' });
  const backingFormat = format ?? probeFormat(probe);
  probe.close();
  const backingFile = resolve(config.file);
  const file = nodeBlockHost.openFile(path, { write: true, create: true });
  createQcow2(file, nodeBlockHost, { size, backingFile, backingFormat });
  file.close();
  return openImage(nodeBlockHost, path, {
    format: 'qcow2',
    write: true,
    cache: 'unsafe',
    backing: { file: backingFile, format: backingFormat },
    allowDeviceBacking: true,
  });
}
