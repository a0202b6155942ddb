import type { BlockNode } from '../../block/node.ts';
import { isZero } from '../../block/node.ts';
import { parseArgs, parseSize, UsageError } from './args.ts';
import { type ChainRun, COMMON_FLAGS, COMMON_VALUES, chainStatus, openNamed, out, Progress } from './common.ts';

interface MapRun {
  start: number;
  length: number;
  depth: number;
  present: boolean;
  zero: boolean;
  data: boolean;
  offset?: number;
  compressed?: boolean;
  filename: string;
}

function toMap(start: number, run: ChainRun): MapRun {
  return {
    start,
    length: run.length,
    depth: run.depth,
    present: run.kind !== 'unallocated',
    zero: run.kind !== 'data',
    data: run.kind === 'data',
    offset: run.hostOffset,
    compressed: run.compressed,
    filename: run.node.filename,
  };
}

function continues(a: MapRun, b: MapRun): boolean {
  return (
    a.depth === b.depth &&
    a.present === b.present &&
    a.zero === b.zero &&
    a.data === b.data &&
    a.compressed === b.compressed &&
    a.filename === b.filename &&
    (a.offset === undefined ? b.offset === undefined : b.offset === a.offset + a.length)
  );
}

/** `map [--output=json] [--start-offset=N] [--max-length=N] filename` */
export function map(argv: string[]): number {
  const parsed = parseArgs(argv, {
    values: {
      ...COMMON_VALUES,
      '--output': 'output',
      '--start-offset': 'start',
      '-s': 'start',
      '--max-length': 'max',
      '-l': 'max',
    },
    flags: COMMON_FLAGS,
  });
  const [path, ...extra] = parsed.rest;
  if (path === undefined || extra.length > 0) throw new UsageError('Expecting one image file name');
  const json = parsed.values.output === 'json';
  const node = openNamed(parsed, path);
  try {
    const start = parsed.values.start === undefined ? 0 : parseSize(parsed.values.start);
    const end = Math.min(node.size, parsed.values.max === undefined ? node.size : start + parseSize(parsed.values.max));
    if (json) out('[');
    else out(`${'Offset'.padEnd(16)}${'Length'.padEnd(16)}${'Mapped to'.padEnd(16)}File\n`);
    let first = true;
    const emit = (run: MapRun): void => {
      if (json) {
        const offset = run.offset === undefined ? '' : `, "offset": ${run.offset}`;
        out(
          `${first ? '' : ',\n'}{ "start": ${run.start}, "length": ${run.length}, "depth": ${run.depth}, "present": ${run.present}, "zero": ${run.zero}, "data": ${run.data}${offset}}`,
        );
      } else if (run.data && run.offset === undefined) {
        throw new UsageError('File contains external, encrypted or compressed clusters.');
      } else if (run.data) {
        const hex = (value: number) => (value === 0 ? '0' : `0x${value.toString(16)}`).padEnd(16);
        out(`${hex(run.start)}${hex(run.length)}${hex(run.offset!)}${run.filename}\n`);
      }
      first = false;
    };
    let current: MapRun | null = null;
    for (let at = start; at < end; ) {
      const run = toMap(at, chainStatus(node, at, end - at));
      at += run.length;
      if (current && continues(current, run)) current.length += run.length;
      else {
        if (current) emit(current);
        current = run;
      }
    }
    if (current) emit(current);
    if (json) out(']\n');
    return 0;
  } finally {
    node.close();
  }
}

const PIECE = 2 << 20;

/** The first offset at which two disks differ in a range; -1 for none. */
export function firstDifference(a: BlockNode, b: BlockNode, offset: number, length: number): number {
  const left = new Uint8Array(Math.min(PIECE, length));
  const right = new Uint8Array(left.length);
  const load = (node: BlockNode, at: number, buf: Uint8Array): void => {
    const inside = Math.max(0, Math.min(buf.length, node.size - at));
    if (inside > 0) node.read(at, buf.subarray(0, inside));
    buf.fill(0, inside);
  };
  for (let at = offset; at < offset + length; at += left.length) {
    const n = Math.min(left.length, offset + length - at);
    const x = left.subarray(0, n);
    const y = right.subarray(0, n);
    load(a, at, x);
    load(b, at, y);
    if (Buffer.compare(x, y) !== 0) for (let i = 0; i < n; i++) if (x[i] !== y[i]) return at + i;
  }
  return -1;
}

/** `compare [-f fmt] [-F fmt] [-s] [-p] filename1 filename2`. Status: 0 equal, 1 different, 2 an error. */
export function compare(argv: string[]): number {
  const parsed = parseArgs(argv, { values: { ...COMMON_VALUES, '-F': 'second' }, flags: { ...COMMON_FLAGS, '-s': 'strict' } });
  if (parsed.rest.length !== 2) throw new UsageError('Expecting two image file names');
  const say = (text: string): void => {
    if (!parsed.flags.has('quiet')) out(text);
  };
  const strict = parsed.flags.has('strict');
  const a = openNamed(parsed, parsed.rest[0]);
  let b: BlockNode;
  try {
    b = openNamed(
      { ...parsed, values: { ...parsed.values, format: parsed.values.second } },
      parsed.rest[1],
      {},
      parsed.values.second,
    );
  } catch (error) {
    a.close();
    throw error;
  }
  try {
    if (strict && a.size !== b.size) {
      say('Strict mode: Image size mismatch!\n');
      return 1;
    }
    const progress = new Progress(parsed.flags.has('progress'));
    const common = Math.min(a.size, b.size);
    for (let at = 0; at < common; ) {
      const one = chainStatus(a, at, Math.min(common - at, 1 << 30));
      const two = chainStatus(b, at, one.length);
      const n = Math.min(two.length, one.length);
      if (strict && (one.kind === 'unallocated') !== (two.kind === 'unallocated')) {
        say(`Strict mode: Offset ${at} block status mismatch!\n`);
        return 1;
      }
      if (one.kind === 'data' || two.kind === 'data') {
        const different = firstDifference(a, b, at, n);
        if (different >= 0) {
          say(`Content mismatch at offset ${different}!\n`);
          return 1;
        }
      }
      at += n;
      progress.update(at, common);
    }
    if (a.size !== b.size) {
      say('Warning: Image size mismatch!\n');
      const longer = a.size > b.size ? a : b;
      const buf = new Uint8Array(PIECE);
      for (let at = common; at < longer.size; ) {
        const run = chainStatus(longer, at, Math.min(longer.size - at, 1 << 30));
        if (run.kind === 'data') {
          for (let done = 0; done < run.length; ) {
            const part = buf.subarray(0, Math.min(buf.length, run.length - done));
            longer.read(at + done, part);
            if (!isZero(part)) {
              say(`Content mismatch at offset ${at + done + part.findIndex((byte) => byte !== 0)}!\n`);
              return 1;
            }
            done += part.length;
          }
        }
        at += run.length;
      }
    }
    progress.end();
    say('Images are identical.\n');
    return 0;
  } finally {
    a.close();
    b.close();
  }
}
