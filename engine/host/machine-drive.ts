/** Opens the image of a drive as its configuration says. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Drive, type DriveHooks, type DriveOptions, formatOf } from '../block/drive.ts';
import { openImage } from '../block/open.ts';
import { createQcow2 } from '../block/qcow2/create.ts';
import type { DriveConfig } from '../contract/machine-config.ts';
import { nodeBlockHost } from './block-file.ts';

/** What block commands call the images of a drive that was given no name. */
export const nodeNameOf = (config: DriveConfig): string => config.nodeName ?? `#block-${config.id}`;

/** How the medium of a drive is opened, by its configuration. */
export function driveOptions(config: DriveConfig): DriveOptions {
  return {
    file: nodeBlockHost.absolutePath(config.file),
    format: config.format === 'auto' ? undefined : config.format,
    readOnly: config.readOnly,
    cache: config.cache,
    unmap: config.discard === 'unmap',
    detectZeroes: config.detectZeroes,
    nodeName: nodeNameOf(config),
  };
}

/** Throws a `BlockError` that says which file and why. A drive without a file has no medium. */
export function openDrive(config: DriveConfig, hooks: DriveHooks): Drive {
  if (config.file === '') return new Drive(nodeBlockHost, undefined, hooks);
  const options = driveOptions(config);
  if (!config.snapshot) return new Drive(nodeBlockHost, options, hooks);
  const temporary = mkdtempSync(join(tmpdir(), 'vivarium-snapshot-'));
  const remove = (): void => rmSync(temporary, { recursive: true, force: true });
  try {
    return new Drive(nodeBlockHost, overlay(options, join(temporary, 'overlay.qcow2')), hooks, remove);
  } catch (error) {
    remove();
    throw error;
  }
}

/** An empty qcow2 image over the drive's own. */
function overlay(options: DriveOptions, path: string): DriveOptions {
  const { file: backingFile, format } = options;
  const below = openImage(nodeBlockHost, backingFile, { format, lock: 'share' });
  const { size } = below;
  below.close();
  const backingFormat = format ?? formatOf(nodeBlockHost, backingFile);
  const file = nodeBlockHost.openFile(path, { write: true, create: true });
  createQcow2(file, nodeBlockHost, { size, backingFile, backingFormat });
  file.close();
  return {
    ...options,
    file: path,
    format: 'qcow2',
    readOnly: false,
    cache: 'unsafe',
    backing: { file: backingFile, format: backingFormat },
    allowDeviceBacking: true,
  };
}
