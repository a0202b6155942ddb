/** The verbs that change an image in place: snapshot, resize, rebase, commit. */
import { BlockError } from '../../block/errors.ts';
import type { BlockNode } from '../../block/node.ts';
import { openImage } from '../../block/open.ts';
import { Qcow2Node } from '../../block/qcow2/node.ts';
import { applySnapshot, createSnapshot, deleteSnapshot, exclusiveBytes } from '../../block/qcow2/snapshot.ts';
import { parseArgs, parseSize, Secrets, UsageError } from './args.ts';
import { asQcow2, COMMON_FLAGS, COMMON_VALUES, cacheMode, host, openNamed, out, Progress, withNode } from './common.ts';
import { snapshotTable } from './info.ts';
import { firstDifference } from './map.ts';

/** `snapshot [-l | -a name | -c name | -d name] filename` */
export function snapshot(argv: string[]): number {
  const parsed = parseArgs(argv, {
    values: { ...COMMON_VALUES, '-a': 'apply', '-c': 'create', '-d': 'delete', '--output': 'output' },
    flags: { ...COMMON_FLAGS, '-l': 'list' },
  });
  const [path, ...extra] = parsed.rest;
  if (path === undefined || extra.length > 0) throw new UsageError('Expecting one image file name');
  const verbs = ['apply', 'create', 'delete'].filter((verb) => parsed.values[verb] !== undefined);
  if (verbs.length + (parsed.flags.has('list') ? 1 : 0) > 1) throw new UsageError("Cannot mix '-l', '-a', '-c', '-d'");
  const node = openNamed(parsed, path, { write: verbs.length > 0, noBacking: true, noData: true });
  return withNode(node, () => {
    if (verbs.length === 0) {
      const list = node instanceof Qcow2Node ? node.snapshots : [];
      if (parsed.values.output === 'json') {
        // Ours: qemu-img has no such form. `exclusive-size` is what a deletion gives back.
        const rows = list.map((each) => ({
          id: each.id,
          name: each.name,
          'vm-state-size': each.vmStateSize,
          'date-sec': each.seconds,
          'vm-clock-nsec': each.vmClock,
          'disk-size': each.diskSize,
          'exclusive-size': exclusiveBytes(node as Qcow2Node, each),
        }));
        out(`${JSON.stringify(rows, null, 2)}\n`);
      } else if (list.length > 0) out(snapshotTable(list));
      return 0;
    }
    const verb = verbs[0];
    const name = parsed.values[verb];
    const words = { create: 'create', apply: 'apply', delete: 'delete' }[verb]!;
    try {
      const image = asQcow2(node, 'snapshots');
      if (verb === 'create') createSnapshot(image, { name });
      else if (verb === 'apply') applySnapshot(image, name);
      else deleteSnapshot(image, name);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      const why = error.code === 'not-found' ? 'snapshot not found' : error.message;
      throw new BlockError(error.code, `Could not ${words} snapshot '${name}': ${why}`, error);
    }
    return 0;
  });
}

/** `resize [--shrink] [--preallocation=mode] filename [+|-]size` */
export function resize(argv: string[]): number {
  const last = argv[argv.length - 1] ?? '';
  const parsed = parseArgs(argv.slice(0, -1), {
    values: { ...COMMON_VALUES, '--preallocation': 'preallocation' },
    flags: { ...COMMON_FLAGS, '--shrink': 'shrink' },
  });
  const [path, ...extra] = parsed.rest;
  if (path === undefined || extra.length > 0) throw new UsageError('Expecting image file name and size');
  const sign = last[0] === '+' || last[0] === '-' ? last[0] : '';
  const amount = parseSize(sign ? last.slice(1) : last);
  const preallocation = parsed.values.preallocation ?? 'off';
  if (!['off', 'metadata', 'falloc', 'full'].includes(preallocation))
    throw new UsageError(`Invalid preallocation mode '${preallocation}'`);
  const node = openNamed(parsed, path, { write: true });
  return withNode(node, () => {
    const old = node.size;
    let size = sign === '+' ? old + amount : sign === '-' ? old - amount : amount;
    if (size <= 0) throw new UsageError('New image size must be positive');
    size = Math.ceil(size / 512) * 512;
    if (size < old && !parsed.flags.has('shrink')) {
      process.stderr.write(
        "vivarium img: warning: Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an operation, make sure there is no important data there.\n",
      );
      throw new UsageError('Use the --shrink option to perform a shrink operation.');
    }
    if (size < old && preallocation !== 'off') throw new UsageError('Preallocation can only be used for growing images');
    node.resize(size);
    if (size > old && preallocation !== 'off') {
      if (node instanceof Qcow2Node) {
        const start = Math.ceil(old / node.clusterSize) * node.clusterSize;
        if (start < size) node.preallocate(start, size - start, preallocation as 'metadata' | 'falloc' | 'full');
      } else {
        if (preallocation === 'metadata') throw new UsageError(`Invalid preallocation mode 'metadata' for raw images`);
        const zeroes = new Uint8Array(1 << 20);
        for (let at = old; at < size; at += zeroes.length) node.write(at, zeroes.subarray(0, Math.min(zeroes.length, size - at)));
      }
    }
    if (!parsed.flags.has('quiet')) out('Image resized.\n');
    return 0;
  });
}

const UNSAFE_NOTE = 'vivarium img: warning: only the name in the header is changed\n';

/** `rebase [-u] -b backing [-F fmt] filename` */
export function rebase(argv: string[]): number {
  const parsed = parseArgs(argv, {
    values: { ...COMMON_VALUES, '-b': 'backing', '-B': 'backing', '-F': 'backingFormat' },
    flags: { ...COMMON_FLAGS, '-u': 'unsafe' },
  });
  const [path, ...extra] = parsed.rest;
  if (path === undefined || extra.length > 0) throw new UsageError('Expecting one image file name');
  const backing = parsed.values.backing;
  if (backing === undefined) throw new UsageError(`Must specify backing file (-b) or use simple rebase mode (-u)`);
  const unsafe = parsed.flags.has('unsafe');
  const format = parsed.values.backingFormat ?? null;
  if (backing !== '' && format === null) {
    if (unsafe) process.stderr.write(UNSAFE_NOTE.replace('only', 'the backing format is not recorded; only'));
    else throw new UsageError('backing file specified without backing format');
  }
  const node = asQcow2(
    openNamed(parsed, path, {
      write: true,
      noBacking: unsafe,
      noData: unsafe,
      cache: cacheMode(parsed.values.cache, 'writeback'),
    }),
    'backing files',
  );
  return withNode(node, () => {
    if (!unsafe) {
      const secrets = new Secrets(parsed.lists.object ?? []);
      const next =
        backing === ''
          ? null
          : openImage(host, host.resolvePath(node.filename, backing), {
              format: format ?? undefined,
              lock: parsed.flags.has('share') ? 'share' : 'auto',
              password: () => secrets.only(),
              allowDeviceBacking: true,
              parents: [node.meta.file.identity],
            });
      try {
        copyDifferences(node, next, new Progress(parsed.flags.has('progress')));
      } finally {
        next?.close();
      }
    }
    node.setBackingName(backing === '' ? null : backing, backing === '' ? null : format);
    return 0;
  });
}

/** Writes into an overlay what it saw in its backing chain and would not see in the next one. */
function copyDifferences(node: Qcow2Node, next: BlockNode | null, progress: Progress): void {
  const nothing = { size: 0 } as BlockNode;
  const step = Math.max(node.clusterSize, 1 << 20);
  const buf = new Uint8Array(step);
  for (let at = 0; at < node.size; ) {
    const run = node.blockStatus(at, node.size - at);
    if (run.kind === 'unallocated') {
      for (let done = 0; done < run.length; ) {
        const from = at + done;
        const n = Math.min(step - (from % step), run.length - done);
        if (firstDifference(node.backing ?? nothing, next ?? nothing, from, n) >= 0) {
          // In clusters, so that what is equal stays shared.
          for (let k = 0; k < n; ) {
            const size = Math.min(node.clusterSize - ((from + k) % node.clusterSize), n - k);
            if (firstDifference(node.backing ?? nothing, next ?? nothing, from + k, size) >= 0) {
              const part = buf.subarray(0, size);
              node.read(from + k, part);
              node.write(from + k, part);
            }
            k += size;
          }
        }
        done += n;
      }
    }
    at += run.length;
    progress.update(at, node.size);
  }
  node.flush();
  progress.end();
}

/** `commit [-b base] [-d] [-p] filename` */
export function commit(argv: string[]): number {
  const parsed = parseArgs(argv, {
    values: { ...COMMON_VALUES, '-b': 'base', '-r': 'rate' },
    flags: { ...COMMON_FLAGS, '-d': 'keep' },
  });
  const [path, ...extra] = parsed.rest;
  if (path === undefined || extra.length > 0) throw new UsageError('Expecting one image file name');
  const cache = cacheMode(parsed.values.cache, 'writeback');
  const secrets = new Secrets(parsed.lists.object ?? []);
  const layers: Qcow2Node[] = [];
  let base: BlockNode | null = null;
  try {
    const top = asQcow2(openNamed(parsed, path, { write: true, noBacking: true, cache }), 'commit');
    layers.push(top);
    const wanted = parsed.values.base;
    const identity = (name: string): string => {
      const file = host.openFile(name, { lock: 'off' });
      file.close();
      return file.identity;
    };
    const wantedIdentity = wanted === undefined ? null : identity(wanted);
    for (let layer = top; ; ) {
      const { backingFile, backingFormat } = layer.meta.header;
      if (backingFile === null)
        throw new BlockError(
          'not-found',
          wanted === undefined
            ? 'Image does not have a backing file'
            : `Did not find '${wanted}' in the backing chain of '${path}'`,
        );
      const name = host.resolvePath(layer.filename, backingFile);
      const isBase = wantedIdentity === null || identity(name) === wantedIdentity;
      const opened = openImage(host, name, {
        format: backingFormat ?? undefined,
        write: isBase,
        noBacking: !isBase,
        cache,
        password: () => secrets.only(),
        parents: layers.map((l) => l.meta.file.identity),
      });
      if (isBase) {
        base = opened;
        break;
      }
      layer = asQcow2(opened, 'commit');
      layers.push(layer);
    }
    const target = base!;
    if (target.size < top.size) target.resize(Math.ceil(top.size / 512) * 512);
    const progress = new Progress(parsed.flags.has('progress'));
    const total = layers.reduce((sum, layer) => sum + layer.size, 0);
    let before = 0;
    const buf = new Uint8Array(2 << 20);
    // From the lowest layer up, so that what lies above wins.
    for (const layer of [...layers].reverse()) {
      for (let at = 0; at < Math.min(layer.size, top.size); ) {
        const run = layer.blockStatus(at, Math.min(layer.size, top.size) - at);
        if (run.kind === 'zero') target.writeZeroes(at, run.length, true);
        else if (run.kind === 'data') {
          for (let done = 0; done < run.length; done += buf.length) {
            const part = buf.subarray(0, Math.min(buf.length, run.length - done));
            layer.read(at + done, part);
            target.write(at + done, part);
          }
        }
        at += run.length;
        progress.update(before + at, total);
      }
      before += layer.size;
      // A middle layer that ended early showed zeros to the layer above it.
      if (layer !== top && layer.size < top.size) target.writeZeroes(layer.size, top.size - layer.size, true);
    }
    target.flush();
    if (!parsed.flags.has('keep') && wanted === undefined) top.makeEmpty();
    progress.end();
    if (!parsed.flags.has('quiet')) out('Image committed.\n');
  } catch (error) {
    for (const node of [...layers, base]) {
      try {
        node?.close();
      } catch {
        // The first error says what went wrong.
      }
    }
    throw error;
  }
  base?.close();
  for (const layer of layers) layer.close();
  return 0;
}
