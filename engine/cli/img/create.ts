import { BlockError } from '../../block/errors.ts';
import { openImage } from '../../block/open.ts';
import { parseArgs, parseKeyValues, parseSize, Secrets, UsageError } from './args.ts';
import { COMMON_FLAGS, createTarget, host, out } from './common.ts';

/** `create [-f fmt] [-b backing [-F fmt]] [-u] [-o options] filename [size]` */
export function create(argv: string[]): number {
  const parsed = parseArgs(argv, {
    values: { '-f': 'format', '-b': 'backing', '-F': 'backingFormat', '-o': 'options', '--object': 'object' },
    flags: { ...COMMON_FLAGS, '-u': 'unsafe', '-e': 'encrypt', '-6': 'old' },
  });
  const format = parsed.values.format ?? 'raw';
  const options = parseKeyValues((parsed.lists.options ?? []).join(','));
  if (options.has('help') || options.has('?')) {
    out(optionsHelp(format));
    return 0;
  }
  if (parsed.flags.has('encrypt')) throw new UsageError('option -e is no longer supported; use -o encrypt.format=luks');
  const [path, sizeText, ...extra] = parsed.rest;
  if (path === undefined) throw new UsageError('Expecting image file name');
  if (extra.length > 0) throw new UsageError(`Unexpected argument: ${extra[0]}`);
  const backingFile = parsed.values.backing ?? options.get('backing_file') ?? null;
  const backingFormat = parsed.values.backingFormat ?? options.get('backing_fmt') ?? null;
  let size = sizeText !== undefined ? parseSize(sizeText) : options.has('size') ? parseSize(options.get('size')!) : undefined;
  if (backingFile !== null && format === 'raw') throw new UsageError(`Backing file not supported for file format 'raw'`);
  if (backingFile !== null && backingFormat === null && !(parsed.flags.has('unsafe') && size !== undefined))
    throw new UsageError('Backing file specified without backing format');
  if (backingFile !== null && !(parsed.flags.has('unsafe') && size !== undefined)) {
    // A read also proves that the name works from where the new image lies, and that it is no loop.
    if (host.exists(path) && sameFile(path, host.resolvePath(path, backingFile)))
      throw new BlockError('invalid', `${path}: Error: Trying to create an image with the same filename as the backing file`);
    const node = openImage(host, host.resolvePath(path, backingFile), {
      format: backingFormat ?? undefined,
      noData: true,
      allowDeviceBacking: true,
    });
    size ??= node.size;
    node.close();
  }
  if (size === undefined) throw new UsageError('Image creation needs a size parameter');
  for (const name of ['size', 'backing_file', 'backing_fmt']) options.delete(name);
  if (!parsed.flags.has('quiet')) {
    const shown: string[] = [];
    for (const [name, value] of options)
      if (!['cluster_size', 'extended_l2', 'compression_type', 'lazy_refcounts', 'refcount_bits'].includes(name))
        shown.push(`${name}=${value}`);
    if (format === 'qcow2') {
      shown.push(`cluster_size=${options.has('cluster_size') ? parseSize(options.get('cluster_size')!) : 65536}`);
      shown.push(
        `extended_l2=${options.get('extended_l2') ?? 'off'}`,
        `compression_type=${options.get('compression_type') ?? 'zlib'}`,
      );
    }
    shown.push(`size=${size}`);
    if (backingFile !== null) shown.push(`backing_file=${backingFile}`);
    if (backingFormat !== null) shown.push(`backing_fmt=${backingFormat}`);
    if (format === 'qcow2')
      shown.push(
        `lazy_refcounts=${options.get('lazy_refcounts') ?? 'off'}`,
        `refcount_bits=${options.get('refcount_bits') ?? 16}`,
      );
    out(`Formatting '${path}', fmt=${format} ${shown.join(' ')}\n`);
  }
  createTarget({ format, path, size, options, backingFile, backingFormat, secrets: new Secrets(parsed.lists.object ?? []) });
  return 0;
}

function sameFile(a: string, b: string): boolean {
  if (!host.exists(b)) return false;
  const one = host.openFile(a, { lock: 'off' });
  const two = host.openFile(b, { lock: 'off' });
  const same = one.identity === two.identity;
  one.close();
  two.close();
  return same;
}

export function optionsHelp(format: string): string {
  if (format === 'raw')
    return 'Supported raw options:\n  preallocation=<str>    - Preallocation mode (allowed values: off, falloc, full)\n  size=<size>            - Virtual disk size\n';
  if (format !== 'qcow2') throw new UsageError(`Unknown file format '${format}'`);
  const lines: [string, string][] = [
    ['backing_file=<str>', 'the image this one is based on'],
    ['backing_fmt=<str>', 'format of that image'],
    ['cluster_size=<size>', 'from 512 to 2M; default 64k'],
    ['compat=<str>', 'v2 (0.10) or v3 (1.1, the default)'],
    ['compression_type=<str>', 'zlib or zstd'],
    ['data_file=<str>', 'a file of its own for guest data'],
    ['data_file_raw=<bool (on/off)>', 'keep that file readable as a raw image'],
    ['encrypt.format=<str>', 'luks'],
    ['encrypt.key-secret=<str>', 'id of the secret with the passphrase'],
    ['encrypt.cipher-alg=<str>', 'aes-128, aes-192 or aes-256'],
    ['encrypt.cipher-mode=<str>', 'xts or cbc'],
    ['encrypt.hash-alg=<str>', 'hash of the key derivation'],
    ['encrypt.ivgen-alg=<str>', 'plain, plain64 or essiv'],
    ['encrypt.ivgen-hash-alg=<str>', 'hash for essiv'],
    ['encrypt.iter-time=<num>', 'milliseconds spent on the key derivation'],
    ['extended_l2=<bool (on/off)>', 'allocate parts of clusters'],
    ['lazy_refcounts=<bool (on/off)>', 'postpone refcount updates'],
    ['preallocation=<str>', 'off, metadata, falloc or full'],
    ['refcount_bits=<num>', 'width of a refcount, 1 to 64'],
    ['size=<size>', 'virtual disk size'],
  ];
  return `Supported qcow2 options:\n${lines.map(([name, text]) => `  ${name.padEnd(22)} - ${text}\n`).join('')}`;
}
