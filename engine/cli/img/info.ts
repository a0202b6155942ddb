import { BlockError } from '../../block/errors.ts';
import { readLuksHeader } from '../../block/luks.ts';
import type { BlockNode } from '../../block/node.ts';
import { AUTOCLEAR_RAW_DATA, COMPAT_LAZY_REFCOUNTS, INCOMPAT_CORRUPT, INCOMPAT_DIRTY } from '../../block/qcow2/header.ts';
import { Qcow2Node } from '../../block/qcow2/node.ts';
import type { Snapshot } from '../../block/qcow2/snapshot.ts';
import { humanSize, parseArgs, UsageError } from './args.ts';
import { COMMON_FLAGS, COMMON_VALUES, host, openNamed, out } from './common.ts';

type Json = string | number | boolean | Json[] | { [key: string]: Json };

function pad2(value: number): string {
  return String(value).padStart(2, '0');
}

/** The table that `info` and `snapshot -l` print. */
export function snapshotTable(list: Snapshot[]): string {
  const row = (id: string, tag: string, size: string, date: string, clock: string, icount: string) =>
    `${id.padEnd(10)}${tag.padEnd(17)}${size.padStart(8)}${date.padStart(20)}${clock.padStart(13)}${icount.padStart(11)}\n`;
  let text = `Snapshot list:\n${row('ID', 'TAG', 'VM SIZE', 'DATE', 'VM CLOCK', 'ICOUNT')}`;
  for (const s of list) {
    const d = new Date(s.seconds * 1000);
    const date = `${d.getFullYear()}-${pad2(d.getMonth() + 1)}-${pad2(d.getDate())} ${pad2(d.getHours())}:${pad2(d.getMinutes())}:${pad2(d.getSeconds())}`;
    const seconds = Math.floor(s.vmClock / 1e9);
    const clock = `${pad2(Math.floor(seconds / 3600))}:${pad2(Math.floor(seconds / 60) % 60)}:${pad2(seconds % 60)}.${String(Math.floor((s.vmClock % 1e9) / 1e6)).padStart(3, '0')}`;
    text += row(s.id, s.name, humanSize(s.vmStateSize), date, clock, '');
  }
  return text;
}

function luksInfo(node: Qcow2Node): Json | null {
  const { crypto } = node.meta.header;
  if (!crypto) return node.meta.header.cryptMethod === 1 ? { format: 'aes' } : null;
  const bytes = new Uint8Array(592);
  node.meta.file.pread(bytes, crypto.offset);
  const luks = readLuksHeader(bytes);
  const [mode, iv] = luks.mode.split('-');
  return {
    'ivgen-alg': (iv ?? 'plain').split(':')[0],
    'hash-alg': luks.hash,
    'cipher-alg': `${luks.cipher}-${mode === 'xts' ? luks.keyBytes * 4 : luks.keyBytes * 8}`,
    uuid: luks.uuid,
    format: 'luks',
    'cipher-mode': mode,
    slots: luks.slots.map(
      (slot): Json =>
        slot.active
          ? { active: true, iters: slot.iterations, 'key-offset': slot.keyOffset * 512, stripes: slot.stripes }
          : { active: false, 'key-offset': slot.keyOffset * 512 },
    ),
    'payload-offset': luks.payloadOffset * 512,
    'master-key-iters': luks.digestIterations,
  };
}

function specific(node: Qcow2Node): { [key: string]: Json } {
  const { header } = node.meta;
  if (header.version === 2) return { compat: '0.10', 'compression-type': 'zlib', 'refcount-bits': 16 };
  const data: { [key: string]: Json } = {
    compat: '1.1',
    'compression-type': header.compressionType ? 'zstd' : 'zlib',
    'lazy-refcounts': (header.compatible & COMPAT_LAZY_REFCOUNTS) !== 0,
  };
  if (node.bitmaps)
    data.bitmaps = node.bitmaps.list.map((bitmap) => ({
      flags: [...(bitmap.flags & 1 ? ['in-use'] : []), ...(bitmap.flags & 2 ? ['auto'] : [])],
      name: bitmap.name,
      granularity: 2 ** bitmap.granularityBits,
    }));
  if (header.dataFile !== null) data['data-file'] = header.dataFile;
  if (node.dataFile) data['data-file-raw'] = (header.autoclear & AUTOCLEAR_RAW_DATA) !== 0;
  data['refcount-bits'] = node.meta.refcountBits;
  const encrypt = luksInfo(node);
  if (encrypt) data.encrypt = encrypt;
  data.corrupt = (header.incompatible & INCOMPAT_CORRUPT) !== 0;
  data['extended-l2'] = node.meta.extended;
  return data;
}

function allocated(node: BlockNode): number | undefined {
  const file = host.openFile(node.filename, { lock: 'off' });
  const bytes = file.allocated();
  file.close();
  return bytes;
}

/** One image in the shape of QAPI `ImageInfo`. */
export function imageInfo(node: BlockNode): { [key: string]: Json } {
  const info: { [key: string]: Json } = { 'virtual-size': node.size, filename: node.filename };
  if (node instanceof Qcow2Node) {
    const { header } = node.meta;
    if (header.backingFile !== null) {
      if (header.backingFormat !== null) info['backing-filename-format'] = header.backingFormat;
      info['backing-filename'] = header.backingFile;
      info['full-backing-filename'] = host.resolvePath(node.filename, header.backingFile);
    }
    if (node.snapshots.length > 0)
      info.snapshots = node.snapshots.map((s) => ({
        'vm-clock-nsec': s.vmClock % 1e9,
        name: s.name,
        'date-sec': s.seconds,
        'date-nsec': s.nanoseconds,
        'vm-clock-sec': Math.floor(s.vmClock / 1e9),
        id: s.id,
        'vm-state-size': s.vmStateSize,
      }));
    info['cluster-size'] = node.clusterSize;
    info['format-specific'] = { type: 'qcow2', data: specific(node) };
    if (header.cryptMethod) info.encrypted = true;
    info['dirty-flag'] = (header.incompatible & INCOMPAT_DIRTY) !== 0;
  } else info['dirty-flag'] = false;
  info.format = node.format;
  const bytes = allocated(node);
  if (bytes !== undefined) info['actual-size'] = bytes;
  return info;
}

function human(value: Json, indent: string): string {
  let text = '';
  const show = (key: string, item: Json): void => {
    if (typeof item === 'object') text += `${indent}${key}:\n${human(item, `${indent}    `)}`;
    else text += `${indent}${key}: ${String(item)}\n`;
  };
  if (Array.isArray(value)) for (const [i, item] of value.entries()) show(`[${i}]`, item);
  else if (typeof value === 'object') for (const [key, item] of Object.entries(value)) show(key.replaceAll('-', ' '), item);
  return text;
}

function describe(node: BlockNode, info: { [key: string]: Json }): string {
  let text = `image: ${node.filename}\nfile format: ${node.format}\nvirtual size: ${humanSize(node.size)} (${node.size} bytes)\n`;
  text += `disk size: ${info['actual-size'] === undefined ? 'unavailable' : humanSize(info['actual-size'] as number)}\n`;
  if (info.encrypted) text += 'encrypted: yes\n';
  if (info['cluster-size']) text += `cluster_size: ${info['cluster-size']}\n`;
  if (info['dirty-flag']) text += 'cleanly shut down: no\n';
  if (info['backing-filename'] !== undefined) {
    const actual = info['full-backing-filename'];
    text += `backing file: ${info['backing-filename']}${actual !== info['backing-filename'] ? ` (actual path: ${actual})` : ''}\n`;
    if (info['backing-filename-format'] !== undefined) text += `backing file format: ${info['backing-filename-format']}\n`;
  }
  if (node instanceof Qcow2Node) {
    if (node.snapshots.length > 0) text += snapshotTable(node.snapshots);
    text += `Format specific information:\n${human(specific(node), '    ')}`;
  }
  return text;
}

/** `info [--output=json] [--backing-chain] filename` */
export function info(argv: string[]): number {
  const parsed = parseArgs(argv, {
    values: { ...COMMON_VALUES, '--output': 'output' },
    flags: { ...COMMON_FLAGS, '--backing-chain': 'chain' },
  });
  const [path, ...extra] = parsed.rest;
  if (path === undefined || extra.length > 0) throw new UsageError('Expecting one image file name');
  const json = parsed.values.output === 'json';
  if (!json && (parsed.values.output ?? 'human') !== 'human')
    throw new UsageError('--output must be used with human or json as argument.');
  const chain = parsed.flags.has('chain');
  const all: { [key: string]: Json }[] = [];
  const texts: string[] = [];
  const top = openNamed(parsed, path, { noData: true, noBacking: !chain, check: true });
  try {
    for (let node: BlockNode | null = top; node; node = node.backing) {
      const one = imageInfo(node);
      all.push(one);
      texts.push(describe(node, one));
      if (!chain) break;
    }
  } finally {
    top.close();
  }
  if (all.length === 0) throw new BlockError('io', 'nothing to show');
  out(json ? `${JSON.stringify(chain ? all : all[0], null, 4)}\n` : texts.join('\n'));
  return 0;
}
