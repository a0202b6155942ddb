import { BlockError } from '../../block/errors.ts';
import type { OpenFileOptions } from '../../block/file.ts';
import type { BlockNode } from '../../block/node.ts';
import { FORMATS, type OpenImageOptions, openImage, parseFilename } from '../../block/open.ts';
import { createQcow2, type Qcow2CreateOptions } from '../../block/qcow2/create.ts';
import { Qcow2Node } from '../../block/qcow2/node.ts';
import { nodeBlockHost as host } from '../../host/block-file.ts';
import { type Parsed, parseBool, parseKeyValues, parseSize, Secrets, UsageError } from './args.ts';

export { host };

/** Options most verbs share. */
export const COMMON_VALUES: Record<string, string> = {
  '-f': 'format',
  '--object': 'object',
  '-t': 'cache',
  '-T': 'sourceCache',
  '--trace': 'trace',
};
export const COMMON_FLAGS: Record<string, string> = {
  '-q': 'quiet',
  '-p': 'progress',
  '-U': 'share',
  '--force-share': 'share',
  '--image-opts': 'imageOpts',
  '--quiet': 'quiet',
};

const CACHES = ['none', 'writeback', 'writethrough', 'directsync', 'unsafe'];

export function out(text: string): void {
  process.stdout.write(text);
}

export function cacheMode(value: string | undefined, fallback: OpenFileOptions['cache']): OpenFileOptions['cache'] {
  if (value === undefined) return fallback;
  if (!CACHES.includes(value)) throw new UsageError(`Invalid cache option: ${value}`);
  return value as OpenFileOptions['cache'];
}

/** Opens a file named on the command line, as `--image-opts`, `-f` and `--object secret` say. */
export function openNamed(
  parsed: Parsed,
  name: string,
  options: OpenImageOptions = {},
  format = parsed.values.format,
): BlockNode {
  const secrets = new Secrets(parsed.lists.object ?? []);
  const open: OpenImageOptions = {
    format,
    password: () => secrets.only(),
    lock: parsed.flags.has('share') ? 'share' : 'auto',
    allowDeviceBacking: process.env.VIVARIUM_ALLOW_DEVICE_BACKING === '1',
    ...options,
  };
  let path = name;
  if (parsed.flags.has('imageOpts')) {
    if (format !== undefined && parsed.values.format === format)
      throw new UsageError('--image-opts and --format are mutually exclusive');
    const opts = parseKeyValues(name);
    path = opts.get('file.filename') ?? opts.get('filename') ?? '';
    if (path === '') throw new UsageError(`--image-opts: no filename in '${name}'`);
    const driver = opts.get('driver');
    open.format = driver === 'file' ? 'raw' : driver;
    const secret = opts.get('encrypt.key-secret') ?? opts.get('key-secret');
    if (secret !== undefined) {
      const key = secrets.get(secret);
      open.password = () => key;
    }
    const backing = opts.get('backing.file.filename');
    const backingSecret = opts.get('backing.encrypt.key-secret');
    if (backing !== undefined) open.backing = { file: backing, format: opts.get('backing.driver') };
    if (backingSecret !== undefined) {
      const outer = open.password!;
      open.password = (file) => (file === path ? outer(file) : secrets.get(backingSecret));
    }
  }
  if (open.format !== undefined && !['file', 'host_device', ...FORMATS].includes(open.format))
    throw new BlockError('unsupported', `Could not open '${path}': Unknown driver '${open.format}'`);
  try {
    return openImage(host, path, open);
  } catch (error) {
    if (error instanceof BlockError && !error.message.startsWith('Could not open'))
      throw new BlockError(error.code, `Could not open '${path}': ${error.message}`, error);
    throw error;
  }
}

export function asQcow2(node: BlockNode, what: string): Qcow2Node {
  if (node instanceof Qcow2Node) return node;
  throw new BlockError('unsupported', `images of format '${node.format}' do not support ${what}`);
}

/** Runs with a node and closes it: properly if all went well, otherwise without hiding the first error. */
export function withNode<T>(node: BlockNode, run: (node: BlockNode) => T): T {
  let result: T;
  try {
    result = run(node);
  } catch (error) {
    try {
      node.close();
    } catch {
      // The first error says what went wrong.
    }
    throw error;
  }
  node.close();
  return result;
}

export { type ChainRun, chainStatus } from '../../block/chain.ts';

/** Progress as qemu-img prints it; silent unless asked for. */
export class Progress {
  private readonly on: boolean;
  private last = -1;
  constructor(on: boolean) {
    this.on = on;
    if (on) this.show(0);
  }
  update(done: number, total: number): void {
    if (this.on) this.show(total === 0 ? 100 : (done / total) * 100);
  }
  private show(percent: number): void {
    const hundredths = Math.floor(percent * 100);
    if (hundredths === this.last) return;
    this.last = hundredths;
    out(`    (${percent.toFixed(2)}/100%)\r`);
  }
  end(): void {
    if (!this.on) return;
    this.show(100);
    out('\n');
  }
}

const QCOW2_OPTIONS = [
  'size',
  'backing_file',
  'backing_fmt',
  'cluster_size',
  'compat',
  'compression_type',
  'data_file',
  'data_file_raw',
  'encryption',
  'encrypt.format',
  'encrypt.key-secret',
  'encrypt.cipher-alg',
  'encrypt.cipher-mode',
  'encrypt.hash-alg',
  'encrypt.ivgen-alg',
  'encrypt.ivgen-hash-alg',
  'encrypt.iter-time',
  'extended_l2',
  'lazy_refcounts',
  'preallocation',
  'refcount_bits',
  'nocow',
];
const RAW_OPTIONS = ['size', 'preallocation', 'nocow'];

export interface CreateRequest {
  format: string;
  path: string;
  /** Bytes. */
  size: number;
  options: Map<string, string>;
  backingFile?: string | null;
  backingFormat?: string | null;
  secrets: Secrets;
}

export function qcow2Options(request: Omit<CreateRequest, 'path' | 'format'>): Qcow2CreateOptions {
  const { options } = request;
  const compat = options.get('compat') ?? '1.1';
  if (!['0.10', 'v2', '1.1', 'v3'].includes(compat)) throw new UsageError(`Invalid compatibility level: '${compat}'`);
  const bool = (name: string) => options.has(name) && parseBool(options.get(name)!, name);
  const compression = options.get('compression_type') ?? 'zlib';
  if (compression !== 'zlib' && compression !== 'zstd')
    throw new UsageError(`Invalid parameter '${compression}' for compression_type`);
  const result: Qcow2CreateOptions = {
    size: request.size,
    version: compat === '0.10' || compat === 'v2' ? 2 : 3,
    clusterSize: options.has('cluster_size') ? parseSize(options.get('cluster_size')!) : bool('extended_l2') ? 65536 : undefined,
    extendedL2: bool('extended_l2'),
    refcountBits: options.has('refcount_bits') ? Number(options.get('refcount_bits')) : undefined,
    lazyRefcounts: bool('lazy_refcounts'),
    compression,
    backingFile: request.backingFile ?? null,
    backingFormat: request.backingFormat ?? null,
    dataFile: options.get('data_file') ?? null,
    dataFileRaw: bool('data_file_raw'),
  };
  const format = options.get('encrypt.format') ?? (bool('encryption') ? 'aes' : undefined);
  if (format === 'aes')
    throw new BlockError('unsupported', 'images with the old AES encryption are not made any more; use encrypt.format=luks');
  if (format !== undefined && format !== 'luks') throw new UsageError(`Invalid encryption format '${format}'`);
  if (format === 'luks') {
    const secret = options.get('encrypt.key-secret');
    if (!secret) throw new UsageError(`Parameter 'encrypt.key-secret' is required for cipher`);
    const cipher = options.get('encrypt.cipher-alg') ?? 'aes-256';
    const mode = options.get('encrypt.cipher-mode') ?? 'xts';
    const iv = options.get('encrypt.ivgen-alg') ?? 'plain64';
    const ivHash = iv === 'essiv' ? `:${options.get('encrypt.ivgen-hash-alg') ?? 'sha256'}` : '';
    const bits = /^aes-(128|256|192)$/.exec(cipher);
    if (!bits) throw new BlockError('unsupported', `Algorithm '${cipher}' is not supported`);
    result.luks = {
      password: request.secrets.get(secret),
      mode: `${mode}-${iv}${ivHash}`,
      hash: options.get('encrypt.hash-alg') ?? 'sha256',
      keyBytes: (Number(bits[1]) / 8) * (mode === 'xts' ? 2 : 1),
      iterTime: options.has('encrypt.iter-time') ? Number(options.get('encrypt.iter-time')) : undefined,
    };
  }
  return result;
}

/** Makes an image; what was in the file is lost. */
export function createTarget(request: CreateRequest): void {
  const { format, options } = request;
  const allowed = format === 'raw' ? RAW_OPTIONS : QCOW2_OPTIONS;
  if (format !== 'raw' && format !== 'qcow2')
    throw new BlockError(
      'unsupported',
      FORMATS.includes(format as never)
        ? `images of format '${format}' can be read but not created`
        : `Unknown file format '${format}'`,
    );
  for (const name of options.keys()) if (!allowed.includes(name)) throw new UsageError(`Invalid parameter '${name}'`);
  const preallocation = options.get('preallocation') ?? 'off';
  if (!['off', 'metadata', 'falloc', 'full'].includes(preallocation) || (format === 'raw' && preallocation === 'metadata'))
    throw new UsageError(`Invalid parameter '${preallocation}' for preallocation`);
  const path = parseFilename(request.path).path;
  if (format === 'raw') {
    if (request.backingFile) throw new UsageError(`Backing file not supported for file format 'raw'`);
    const size = Math.ceil(request.size / 512) * 512;
    const file = host.openFile(path, { create: true });
    try {
      file.truncate(size);
      if (preallocation === 'falloc') file.allocate(0, size);
      if (preallocation === 'full') writeAllZeroes(size, (offset, buf) => file.pwrite(buf, offset));
      file.flush();
    } finally {
      file.close();
    }
    return;
  }
  const wanted = qcow2Options(request);
  if (preallocation !== 'off' && wanted.backingFile && !wanted.extendedL2)
    throw new UsageError('Backing file and preallocation can only be used at the same time if extended_l2 is enabled');
  if (wanted.dataFile) {
    const data = host.openFile(parseFilename(host.resolvePath(path, wanted.dataFile)).path, { create: true });
    try {
      if (wanted.dataFileRaw) data.truncate(request.size);
    } finally {
      data.close();
    }
  }
  const file = host.openFile(path, { create: true, cache: 'unsafe' });
  try {
    createQcow2(file, host, wanted);
  } finally {
    file.close();
  }
  if (preallocation !== 'off') {
    const password = wanted.luks?.password ?? null;
    const node = openImage(host, path, { format: 'qcow2', write: true, noBacking: true, password: () => password }) as Qcow2Node;
    withNode(node, () => node.preallocate(0, node.size, preallocation as 'metadata' | 'falloc' | 'full'));
  }
}

function writeAllZeroes(size: number, write: (offset: number, buf: Uint8Array) => void): void {
  const zeroes = new Uint8Array(1 << 20);
  for (let at = 0; at < size; at += zeroes.length) write(at, zeroes.subarray(0, Math.min(zeroes.length, size - at)));
}
