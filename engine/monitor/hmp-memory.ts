/**
 * The `x`, `xp`, `i`, `o` and `p` formats of the human monitor: `/` count, format (x d u o c i s), size (b h w g).
 * QEMU's layout: 16 bytes a line, the address first, each value padded to the width of its largest.
 */

export interface Format {
  readonly count: number;
  readonly format: 'x' | 'd' | 'u' | 'o' | 'c' | 'i' | 's';
  /** Bytes a value. */
  readonly size: 1 | 2 | 4 | 8;
  /** True where the text itself said the size. */
  readonly sized: boolean;
}

/** Bytes that one `x` prints, at most. */
export const maxDumpBytes = 1 << 20;

/** Reads `/FMT` at the start of `text`. Returns the format and the rest, or an error for the person. */
export function parseFormat(text: string, defaults: Format): { format: Format; rest: string } | { error: string } {
  if (!text.startsWith('/')) return { format: defaults, rest: text };
  const match = /^\/(\d*)([^\s\d]*)(?=\s|$)/.exec(text);
  if (match === null) return { error: 'invalid format' };
  const count = match[1] === '' ? 1 : Number(match[1]);
  if (count > maxDumpBytes) return { error: `count is larger than ${maxDumpBytes}` };
  let { format, size } = defaults;
  let sized = false;
  for (const char of match[2]) {
    const bytes = { b: 1, h: 2, w: 4, g: 8, L: 8 }[char];
    if (bytes !== undefined) {
      size = bytes as Format['size'];
      sized = true;
    } else if ('xduocis'.includes(char)) format = char as Format['format'];
    else return { error: `invalid char in format: '${char}'` };
  }
  if (!sized && format !== defaults.format && (format === 'c' || format === 's')) size = 1;
  return { format: { count, format, size, sized }, rest: text.slice(match[0].length) };
}

const escapes: Readonly<Record<number, string>> = { 39: "\\'", 92: '\\\\', 10: '\\n', 13: '\\r' };

/** A character constant: printable ones as they are, others as \xNN. */
export function characterConstant(value: number): string {
  const byte = value & 0xff;
  const text =
    escapes[byte] ?? (byte >= 32 && byte <= 126 ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`);
  return `'${text}'`;
}

/** Columns a value of `size` bytes takes: hex digits, or the longest decimal or octal of the size. */
const widths = { x: [2, 4, 8, 16], o: [3, 6, 11, 22], u: [3, 5, 10, 20], d: [3, 5, 10, 20] } as const;

/** One value as the format prints it, padded. */
export function formatValue(value: bigint, { format, size }: Pick<Format, 'format' | 'size'>): string {
  const step = size === 1 ? 0 : size === 2 ? 1 : size === 4 ? 2 : 3;
  switch (format) {
    case 'o':
      return `0${value.toString(8).padStart(widths.o[step], '0')}`;
    case 'u':
      return value.toString().padStart(widths.u[step], ' ');
    case 'd':
      return BigInt.asIntN(size * 8, value)
        .toString()
        .padStart(widths.d[step], ' ');
    case 'c':
      return characterConstant(Number(value & 0xffn));
    default:
      return `0x${value.toString(16).padStart(widths.x[step], '0')}`;
  }
}

/** A value without padding, for `p`. */
export function formatPlain(value: bigint, format: Format['format']): string {
  switch (format) {
    case 'o':
      return `0${value.toString(8)}`;
    case 'u':
      return value.toString();
    case 'c':
      return characterConstant(Number(value & 0xffn));
    case 'd':
      return BigInt.asIntN(64, value).toString();
    default:
      return `0x${value.toString(16)}`;
  }
}

/** Memory as `x` shows it. `read` gives bytes or undefined where nothing is mapped; that ends the dump with a line that says so. */
export function dumpMemory(
  address: bigint,
  format: Format,
  addressDigits: number,
  read: (address: bigint, length: number) => Uint8Array | undefined,
): string {
  const lineBytes = 16;
  const total = format.count * format.size;
  let output = '';
  for (let done = 0; done < total; done += lineBytes) {
    const at = BigInt.asUintN(64, address + BigInt(done));
    const length = Math.min(lineBytes, total - done);
    const bytes = read(at, length);
    if (bytes === undefined) return `${output} Cannot access memory at 0x${at.toString(16)}\n`;
    const values: string[] = [];
    for (let offset = 0; offset < length; offset += format.size) {
      let value = 0n;
      for (let byte = format.size - 1; byte >= 0; byte--) value = (value << 8n) | BigInt(bytes[offset + byte]);
      values.push(formatValue(value, format));
    }
    output += `${at.toString(16).padStart(addressDigits, '0')}: ${values.join(' ')}\n`;
  }
  return output;
}

/** `x/s`: zero-terminated strings, one a line, each at most 4096 bytes. */
export function dumpStrings(
  address: bigint,
  count: number,
  addressDigits: number,
  read: (address: bigint, length: number) => Uint8Array | undefined,
): string {
  let output = '';
  let at = address;
  for (let index = 0; index < Math.min(count, 4096); index++) {
    let text = '';
    const start = at;
    for (let length = 0; length < 4096; length++) {
      const byte = read(at, 1);
      if (byte === undefined) return `${output} Cannot access memory at 0x${at.toString(16)}\n`;
      at = BigInt.asUintN(64, at + 1n);
      if (byte[0] === 0) break;
      text += byte[0] === 34 ? '\\"' : byte[0] === 39 ? "'" : characterConstant(byte[0]).slice(1, -1);
    }
    output += `${start.toString(16).padStart(addressDigits, '0')}: "${text}"\n`;
  }
  return output;
}
