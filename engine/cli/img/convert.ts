import { BlockError } from '../../block/errors.ts';
import { type BlockNode, isZero } from '../../block/node.ts';
import { openImage } from '../../block/open.ts';
import { Qcow2Node } from '../../block/qcow2/node.ts';
import { findSnapshot } from '../../block/qcow2/snapshot.ts';
import { parseArgs, parseKeyValues, parseSize, Secrets, UsageError } from './args.ts';
import {
  asQcow2,
  COMMON_FLAGS,
  COMMON_VALUES,
  cacheMode,
  chainStatus,
  createTarget,
  host,
  openNamed,
  out,
  Progress,
  withNode,
} from './common.ts';
import { optionsHelp } from './create.ts';

const BUFFER = 2 << 20;

export interface CopyOptions {
  /** The target is new and reads as zeros where nothing was written. */
  targetIsZero: boolean;
  compress: boolean;
  /** Runs of zeros at least this long become holes; 0 writes them out. */
  sparse: number;
  /** What the top image does not say is left to the target's own backing file. */
  keepUnallocated: boolean;
  /** Go on after a read error, with zeros. */
  salvage: boolean;
  progress: (done: number) => void;
}

/** Copies a disk to `base` in the target. */
export function copyDisk(source: BlockNode, target: BlockNode, base: number, options: CopyOptions): void {
  const cluster = target instanceof Qcow2Node ? target.clusterSize : 4096;
  const step = options.compress ? cluster : Math.max(cluster, BUFFER);
  const buffer = new Uint8Array(step);
  let at = 0;
  while (at < source.size) {
    const most = Math.min(source.size - at, 1 << 30);
    const own = options.keepUnallocated ? source.blockStatus(at, most) : null;
    const run = own ?? chainStatus(source, at, most);
    let length = run.length;
    if (own?.kind === 'unallocated' && at < (source.backing?.size ?? 0)) {
      at += length;
      options.progress(at);
      continue;
    }
    if (run.kind !== 'data' && options.sparse > 0) {
      if (options.compress) {
        // Whole clusters only: what is left of a cluster is read with the data after it.
        const end = at + length === source.size ? at + length : at + length - ((base + at + length) % cluster);
        if ((base + at) % cluster === 0 && end > at) length = end - at;
        else length = 0;
      }
      if (length > 0) {
        if (!options.targetIsZero) target.writeZeroes(base + at, length, true);
        at += length;
        options.progress(at);
        continue;
      }
      length = run.length;
    }
    // Pieces end at multiples of the step, so that compressed clusters are whole.
    let n = Math.min(step - ((base + at) % step), source.size - at);
    if (!options.compress) n = Math.min(n, length);
    const part = buffer.subarray(0, n);
    try {
      source.read(at, part);
    } catch (error) {
      if (!options.salvage) throw error;
      process.stderr.write(`vivarium img: warning: error while reading offset ${at}: ${(error as Error).message}\n`);
      part.fill(0);
    }
    if (options.compress) writeCompressed(target, base + at, part, options);
    else writeSparse(target, base + at, part, options);
    at += n;
    options.progress(at);
  }
}

function writeCompressed(target: BlockNode, offset: number, part: Uint8Array, options: CopyOptions): void {
  if (isZero(part)) {
    if (!options.targetIsZero) target.writeZeroes(offset, part.length, true);
    return;
  }
  const node = target as Qcow2Node;
  if (offset % node.clusterSize === 0 && (part.length === node.clusterSize || offset + part.length === node.size))
    node.writeCompressed(offset, part);
  else node.write(offset, part);
}

/** Writes runs of data, and leaves out (or clears) runs of zeros. */
function writeSparse(target: BlockNode, offset: number, part: Uint8Array, options: CopyOptions): void {
  if (options.sparse === 0) {
    target.write(offset, part);
    return;
  }
  const unit = options.sparse;
  let start = 0;
  while (start < part.length) {
    const zero = isZero(part.subarray(start, Math.min(part.length, start + unit)));
    let end = start + unit;
    while (end < part.length && isZero(part.subarray(end, Math.min(part.length, end + unit))) === zero) end += unit;
    end = Math.min(end, part.length);
    if (!zero) target.write(offset + start, part.subarray(start, end));
    else if (!options.targetIsZero) target.writeZeroes(offset + start, end - start, true);
    start = end;
  }
}

/** `convert [-c] [-p] [-n] [-f fmt] [-O fmt] [-B backing [-F fmt]] [-o options] [-l snapshot] [-S size] src... dst` */
export function convert(argv: string[]): number {
  const parsed = parseArgs(argv, {
    values: {
      ...COMMON_VALUES,
      '-O': 'target',
      '-B': 'backing',
      '-F': 'backingFormat',
      '-b': 'backing',
      '-o': 'options',
      '-l': 'snapshot',
      '-S': 'sparse',
      '-r': 'rate',
      '-m': 'coroutines',
    },
    flags: {
      ...COMMON_FLAGS,
      '-c': 'compress',
      '-n': 'noCreate',
      '-C': 'copyOffload',
      '-W': 'outOfOrder',
      '--target-is-zero': 'targetIsZero',
      '--target-image-opts': 'targetImageOpts',
      '--salvage': 'salvage',
    },
  });
  const targetFormat = parsed.values.target ?? 'raw';
  const options = parseKeyValues((parsed.lists.options ?? []).join(','));
  if (options.has('help') || options.has('?')) {
    out(optionsHelp(targetFormat));
    return 0;
  }
  if (parsed.rest.length < 2) throw new UsageError('Must specify image file name');
  const sources = parsed.rest.slice(0, -1);
  const path = parsed.rest[parsed.rest.length - 1];
  const compress = parsed.flags.has('compress');
  const noCreate = parsed.flags.has('noCreate');
  if (parsed.flags.has('targetIsZero') && !noCreate) throw new UsageError('--target-is-zero requires use of -n flag');
  if (compress && targetFormat !== 'qcow2') throw new UsageError('Compression not supported for this file format');
  const encrypted = options.has('encrypt.format') || options.has('encryption');
  if (compress && encrypted) throw new UsageError('Compression and encryption not supported at the same time');
  const backingFile = parsed.values.backing ?? options.get('backing_file') ?? null;
  const backingFormat = parsed.values.backingFormat ?? options.get('backing_fmt') ?? null;
  if (backingFile !== null && backingFormat === null && !noCreate)
    throw new UsageError('backing file specified without backing format');
  if (backingFile !== null && sources.length > 1)
    throw new UsageError('Having a backing file for the target makes no sense when concatenating multiple input images');
  const sparse = parsed.values.sparse === undefined ? 4096 : parseSize(parsed.values.sparse);
  if (sparse % 512 !== 0)
    throw new UsageError('Invalid buffer size for sparse output specified. Valid sizes are multiples of 512.');
  for (const name of ['size', 'backing_file', 'backing_fmt']) options.delete(name);

  const opened: BlockNode[] = [];
  try {
    for (const source of sources)
      opened.push(openNamed(parsed, source, { cache: cacheMode(parsed.values.sourceCache, 'writeback') }));
    const snapshot = parsed.values.snapshot;
    if (snapshot !== undefined) {
      if (opened.length > 1) throw new UsageError('No support for concatenating multiple snapshot');
      const node = asQcow2(opened[0], 'snapshots');
      const named = parseKeyValues(snapshot);
      node.selectSnapshot(findSnapshot(node, named.get('snapshot.id') ?? named.get('snapshot.name') ?? snapshot));
    }
    const size = opened.reduce((sum, node) => sum + node.size, 0);
    const secrets = new Secrets(parsed.lists.object ?? []);
    if (!noCreate) createTarget({ format: targetFormat, path, size, options, backingFile, backingFormat, secrets });
    const secretId = options.get('encrypt.key-secret');
    const cache = cacheMode(parsed.values.cache, 'unsafe');
    const target = parsed.flags.has('targetImageOpts')
      ? openNamed({ ...parsed, flags: new Set([...parsed.flags, 'imageOpts']) }, path, { write: true, cache }, undefined)
      : openImage(host, path, {
          format: noCreate && parsed.values.target === undefined ? undefined : targetFormat,
          write: true,
          cache,
          password: () => (secretId !== undefined ? secrets.get(secretId) : secrets.only()),
          allowDeviceBacking: true,
        });
    withNode(target, () => {
      if (target.size < size) throw new BlockError('invalid', 'output file is smaller than input file');
      if (compress && !(target instanceof Qcow2Node)) throw new UsageError('Compression not supported for this file format');
      const progress = new Progress(parsed.flags.has('progress') && !parsed.flags.has('quiet'));
      const preallocated = (options.get('preallocation') ?? 'off') !== 'off';
      let base = 0;
      for (const source of opened) {
        copyDisk(source, target, base, {
          targetIsZero: (noCreate ? parsed.flags.has('targetIsZero') : backingFile === null) && !(preallocated && encrypted),
          compress,
          sparse,
          keepUnallocated: backingFile !== null,
          salvage: parsed.flags.has('salvage'),
          progress: (done) => progress.update(base + done, size),
        });
        base += source.size;
      }
      target.flush();
      progress.end();
    });
  } finally {
    for (const node of opened) node.close();
  }
  return 0;
}
