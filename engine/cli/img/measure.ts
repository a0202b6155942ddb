/** measure, bench and dd. */
import { BlockError } from '../../block/errors.ts';
import { isZero } from '../../block/node.ts';
import { openImage } from '../../block/open.ts';
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
  qcow2Options,
  withNode,
} from './common.ts';

/** Bytes of refcount tables for so many clusters, their own included. */
function refcountBytes(clusters: number, clusterSize: number, refcountBits: number): number {
  const perBlock = (clusterSize * 8) / refcountBits;
  let table = 0;
  let blocks = 0;
  for (let total = 0, last = -1; total !== last; ) {
    last = total;
    blocks = Math.ceil((clusters + table + blocks) / perBlock);
    table = Math.ceil(blocks / (clusterSize / 8));
    total = clusters + blocks + table;
  }
  return (blocks + table) * clusterSize;
}

/** `measure [-O fmt] [-o options] [--size N | filename]` */
export function measure(argv: string[]): number {
  const parsed = parseArgs(argv, {
    values: { ...COMMON_VALUES, '-O': 'target', '-o': 'options', '--size': 'size', '-l': 'snapshot', '--output': 'output' },
    flags: COMMON_FLAGS,
  });
  const format = parsed.values.target ?? 'raw';
  const options = parseKeyValues((parsed.lists.options ?? []).join(','));
  const [path] = parsed.rest;
  if ((path === undefined) === (parsed.values.size === undefined))
    throw new UsageError('Either --size N or one filename must be specified.');
  const secrets = new Secrets(parsed.lists.object ?? []);
  let size = parsed.values.size === undefined ? 0 : parseSize(parsed.values.size);
  const wanted = format === 'qcow2' ? qcow2Options({ size, options, secrets: secrets }) : null;
  if (format !== 'raw' && !wanted) throw new BlockError('unsupported', `images of format '${format}' cannot be measured`);
  const cluster = wanted?.clusterSize ?? 65536;
  let data = 0;
  if (path !== undefined) {
    const node = openNamed(parsed, path);
    try {
      if (parsed.values.snapshot)
        asQcow2(node, 'snapshots').selectSnapshot(findSnapshot(asQcow2(node, 'snapshots'), parsed.values.snapshot));
      size = node.size;
      let counted = 0;
      for (let at = 0; at < size; ) {
        const run = chainStatus(node, at, size - at);
        if (run.kind === 'data') {
          const start = Math.max(counted, at - (at % cluster));
          counted = Math.ceil((at + run.length) / cluster) * cluster;
          data += Math.max(0, counted - start);
        }
        at += run.length;
      }
    } finally {
      node.close();
    }
  }
  let required: number;
  let full: number;
  if (!wanted) {
    required = full = Math.ceil(size / 512) * 512;
  } else {
    const aligned = Math.ceil(size / cluster) * cluster;
    const entry = wanted.extendedL2 ? 16 : 8;
    const l2Entries = Math.ceil(aligned / cluster / (cluster / entry)) * (cluster / entry);
    const l1Entries = Math.ceil((l2Entries * entry) / cluster / (cluster / 8)) * (cluster / 8);
    let meta = cluster + l2Entries * entry + l1Entries * 8;
    meta += refcountBytes(Math.ceil((meta + aligned) / cluster), cluster, wanted.refcountBits ?? 16);
    if (wanted.luks)
      meta += Math.ceil(((8 + Math.ceil((wanted.luks.keyBytes! * 4000) / 4096) * 8 * 8) * 512) / cluster) * cluster;
    const preallocated = (options.get('preallocation') ?? 'off') === 'falloc' || options.get('preallocation') === 'full';
    full = meta + aligned;
    required = meta + (preallocated ? aligned : Math.min(aligned, data));
  }
  if (parsed.values.output === 'json') out(`${JSON.stringify({ required, 'fully-allocated': full }, null, 4)}\n`);
  else out(`required size: ${required}\nfully allocated size: ${full}\n`);
  return 0;
}

/** `bench [-c count] [-s size] [-S step] [-o offset] [-w] [--pattern N] [--flush-interval N] filename` */
export function bench(argv: string[]): number {
  const parsed = parseArgs(argv, {
    values: {
      ...COMMON_VALUES,
      '-c': 'count',
      '-d': 'depth',
      '-s': 'size',
      '-S': 'step',
      '-o': 'offset',
      '-i': 'aio',
      '--pattern': 'pattern',
      '--flush-interval': 'flush',
    },
    flags: { ...COMMON_FLAGS, '-w': 'write', '-n': 'native', '--no-drain': 'noDrain' },
  });
  const [path, ...extra] = parsed.rest;
  if (path === undefined || extra.length > 0) throw new UsageError('Expecting one image file name');
  const number = (key: string, fallback: number): number => {
    const text = parsed.values[key];
    if (text === undefined) return fallback;
    const value = parseSize(text);
    return value;
  };
  const count = number('count', 75000);
  const size = number('size', 4096);
  const step = number('step', 0) || size;
  const depth = number('depth', 64);
  const flush = number('flush', 0);
  const write = parsed.flags.has('write');
  let offset = number('offset', 0);
  const node = openNamed(parsed, path, { write, cache: cacheMode(parsed.values.cache, 'writeback') });
  return withNode(node, () => {
    if (size <= 0 || offset + size > node.size) throw new UsageError('the requests lie outside the image');
    if (!parsed.flags.has('quiet')) {
      out(
        `Sending ${count} ${write ? 'write' : 'read'} requests, ${size} bytes each, ${depth} in parallel (starting at offset ${offset}, step size ${step})\n`,
      );
      if (flush) out(`Sending flush every ${flush} requests\n`);
    }
    const buf = new Uint8Array(size).fill(number('pattern', 0));
    const start = performance.now();
    for (let i = 0; i < count; i++) {
      if (write) node.write(offset, buf);
      else node.read(offset, buf);
      if (flush && (i + 1) % flush === 0) node.flush();
      offset += step;
      if (offset + size > node.size) offset %= Math.max(1, node.size - size + 1);
    }
    if (write && !parsed.flags.has('noDrain')) node.flush();
    out(`Run completed in ${((performance.now() - start) / 1000).toFixed(3)} seconds.\n`);
    return 0;
  });
}

/** `dd [-f fmt] [-O fmt] [bs=N] [count=N] [skip=N] if=input of=output` */
export function dd(argv: string[]): number {
  const parsed = parseArgs(argv, { values: { ...COMMON_VALUES, '-O': 'target' }, flags: COMMON_FLAGS });
  const words = new Map(
    parsed.rest.map((word) => {
      const equals = word.indexOf('=');
      if (equals < 0 || !['bs', 'count', 'skip', 'if', 'of'].includes(word.slice(0, equals)))
        throw new UsageError(`invalid operand: ${word}`);
      return [word.slice(0, equals), word.slice(equals + 1)] as const;
    }),
  );
  const input = words.get('if');
  const output = words.get('of');
  if (!input || !output) throw new UsageError('Must specify both input and output file names');
  const block = parseSize(words.get('bs') ?? '512');
  const format = parsed.values.target ?? 'raw';
  const source = openNamed(parsed, input);
  try {
    const skip = Math.min(source.size, parseSize(words.get('skip') ?? '0') * block);
    const size = Math.min(
      source.size - skip,
      words.has('count') ? parseSize(words.get('count')!) * block : Number.POSITIVE_INFINITY,
    );
    createTarget({ format, path: output, size, options: new Map(), secrets: new Secrets([]) });
    const target = openImage(host, output, { format, write: true, cache: 'unsafe' });
    withNode(target, () => {
      const buf = new Uint8Array(1 << 20);
      for (let done = 0; done < size; done += buf.length) {
        const part = buf.subarray(0, Math.min(buf.length, size - done));
        source.read(skip + done, part);
        if (!isZero(part)) target.write(done, part);
      }
    });
  } finally {
    source.close();
  }
  return 0;
}
