/**
 * A small assembler of ACPI Machine Language: every function gives the bytes of one term. ACPI 6.4, chapter 20 (AML)
 * and 6.4 (resource descriptors). Misuse, such as a bad name, throws: what is assembled comes from us, not from guests.
 */

/** Encoded AML. */
export type Aml = readonly number[];

const concat = (parts: readonly Aml[]): number[] => {
  const all: number[] = [];
  for (const part of parts) for (const byte of part) all.push(byte);
  return all;
};

const little = (value: number, size: number): number[] => {
  const out: number[] = [];
  for (let i = 0; i < size; i++) out.push(Math.floor(value / 2 ** (8 * i)) % 256);
  return out;
};

/** PkgLength counts itself. ACPI 6.4, 20.2.4. */
function withLength(body: Aml): number[] {
  const length = body.length;
  if (length + 1 < 0x40) return [length + 1, ...body];
  for (let extra = 1; extra <= 3; extra++) {
    const total = length + 1 + extra;
    if (total < 2 ** (4 + 8 * extra)) return [(extra << 6) | (total & 15), ...little(Math.floor(total / 16), extra), ...body];
  }
  throw new RangeError('AML package is too long');
}

/** A NameString: `\_SB.PCI0`, `^ISA.PRQ0`, `FOO`; segments are padded with underscores. ACPI 6.4, 20.2.2. */
export function path(text: string): Aml {
  const match = /^(\\|\^*)(.*)$/.exec(text);
  const prefix = match?.[1] ?? '';
  const rest = match?.[2] ?? '';
  const out = [...prefix].map((c) => c.charCodeAt(0));
  if (rest === '') return [...out, 0];
  const segments = rest.split('.').map((segment) => {
    if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(segment)) throw new RangeError(`not an AML name: ${text}`);
    return [...segment.padEnd(4, '_')].map((c) => c.charCodeAt(0));
  });
  if (segments.length === 2) out.push(0x2e);
  else if (segments.length > 2) out.push(0x2f, segments.length);
  return [...out, ...segments.flat()];
}

/** The shortest constant for a number below 2^53. */
export function integer(value: number): Aml {
  if (value === 0) return [0x00];
  if (value === 1) return [0x01];
  if (value < 2 ** 8) return [0x0a, value];
  if (value < 2 ** 16) return [0x0b, ...little(value, 2)];
  if (value < 2 ** 32) return [0x0c, ...little(value, 4)];
  return [0x0e, ...little(value, 8)];
}

export const string = (text: string): Aml => [0x0d, ...[...text].map((c) => c.charCodeAt(0) & 0x7f), 0];
export const buffer = (data: Aml): Aml => [0x11, ...withLength([...integer(data.length), ...data])];
/** Up to 255 elements. */
export const pack = (...elements: readonly Aml[]): Aml => [0x12, ...withLength([elements.length, ...concat(elements)])];

/** The compressed form of an id such as PNP0A03. ACPI 6.4, 19.6.37. */
export function eisaId(id: string): Aml {
  const letter = (i: number): number => id.charCodeAt(i) - 64;
  const maker = (letter(0) << 10) | (letter(1) << 5) | letter(2);
  const product = Number.parseInt(id.slice(3), 16);
  return [0x0c, maker >> 8, maker & 0xff, product >> 8, product & 0xff];
}

export const name = (where: string, value: Aml): Aml => [0x08, ...path(where), ...value];
export const scope = (where: string, ...terms: readonly Aml[]): Aml => [0x10, ...withLength([...path(where), ...concat(terms)])];
export const device = (where: string, ...terms: readonly Aml[]): Aml => [
  0x5b,
  0x82,
  ...withLength([...path(where), ...concat(terms)]),
];
/** A Processor object without a P_BLK. */
export const processor = (where: string, id: number, ...terms: readonly Aml[]): Aml => [
  0x5b,
  0x83,
  ...withLength([...path(where), id, 0, 0, 0, 0, 0, ...concat(terms)]),
];
export const method = (where: string, argumentCount: number, ...terms: readonly Aml[]): Aml => [
  0x14,
  ...withLength([...path(where), argumentCount, ...concat(terms)]),
];
/** As `method`, for one that creates named objects: only one thread may be inside. */
export const serialized = (where: string, argumentCount: number, ...terms: readonly Aml[]): Aml => [
  0x14,
  ...withLength([...path(where), argumentCount | 8, ...concat(terms)]),
];

export const Space = { memory: 0, io: 1, pciConfig: 2 } as const;
export const operationRegion = (where: string, space: number, offset: number, length: number): Aml => [
  0x5b,
  0x80,
  ...path(where),
  space,
  ...integer(offset),
  ...integer(length),
];
/** A Field of byte access, without lock, that preserves; fields are names with their bits. */
export const byteField = (region: string, ...fields: readonly (readonly [string, number])[]): Aml => [
  0x5b,
  0x81,
  ...withLength([...path(region), 0x01, ...concat(fields.map(([field, bits]) => [...path(field), ...bitLength(bits)]))]),
];
/** As `byteField`, with accesses of four bytes; what is not written is written as zeros. */
export const dwordFields = (region: string, ...fields: readonly (readonly [string, number])[]): Aml => [
  0x5b,
  0x81,
  ...withLength([...path(region), 0x43, ...concat(fields.map(([field, bits]) => [...path(field), ...bitLength(bits)]))]),
];
function bitLength(bits: number): Aml {
  return bits < 0x40 ? [bits] : [0x40 | (bits & 15), bits >> 4];
}

export const local = (index: number): Aml => [0x60 + index];
export const argument = (index: number): Aml => [0x68 + index];
export const store = (value: Aml, target: Aml): Aml => [0x70, ...value, ...target];
export const and = (a: Aml, b: Aml, target: Aml = [0]): Aml => [0x7b, ...a, ...b, ...target];
export const or = (a: Aml, b: Aml, target: Aml = [0]): Aml => [0x7d, ...a, ...b, ...target];
export const equal = (a: Aml, b: Aml): Aml => [0x93, ...a, ...b];
export const dwordField = (source: Aml, offset: number, where: string): Aml => [
  0x8a,
  ...source,
  ...integer(offset),
  ...path(where),
];
export const when = (condition: Aml, ...terms: readonly Aml[]): Aml => [0xa0, ...withLength([...condition, ...concat(terms)])];
export const otherwise = (...terms: readonly Aml[]): Aml => [0xa1, ...withLength(concat(terms))];
export const notify = (target: string, value: Aml): Aml => [0x86, ...path(target), ...value];
export const giveBack = (value: Aml): Aml => [0xa4, ...value];

// Resource descriptors. ACPI 6.4, 6.4.2 and 6.4.3.

/** A buffer of resource descriptors with its end tag. */
export const resources = (...descriptors: readonly Aml[]): Aml => buffer([...concat(descriptors), 0x79, 0]);

export const ioPorts = (base: number, length: number): Aml => [0x47, 1, ...little(base, 2), ...little(base, 2), 1, length];
/** An edge-triggered, active-high interrupt of the ISA bus. */
export const irq = (number: number): Aml => [0x22, ...little(1 << number, 2)];
/** Compatibility timing, bytes, no bus master. ACPI 6.4, 6.4.2.2. */
export const dmaChannel = (channel: number): Aml => [0x2a, 1 << channel, 0];
/** Level-triggered, active-high, shared: the PCI interrupts as our lines are. */
export const sharedIrqs = (...numbers: readonly number[]): Aml => [
  0x89,
  ...little(2 + 4 * numbers.length, 2),
  0x09,
  numbers.length,
  ...numbers.flatMap((number) => little(number, 4)),
];
export const memory32 = (base: number, length: number): Aml => [0x86, 9, 0, 1, ...little(base, 4), ...little(length, 4)];

/** Both limits fixed, positive decode, produced for the children. */
const WINDOW = 0x0c;
export const busRange = (first: number, last: number): Aml => [
  0x88,
  13,
  0,
  2,
  WINDOW,
  0,
  ...[0, first, last, 0, last - first + 1].flatMap((value) => little(value, 2)),
];
export const ioWindow = (first: number, last: number): Aml => [
  0x88,
  13,
  0,
  1,
  WINDOW,
  3,
  ...[0, first, last, 0, last - first + 1].flatMap((value) => little(value, 2)),
];
export const memoryWindow32 = (first: number, last: number, cacheable = false): Aml => [
  0x87,
  23,
  0,
  0,
  WINDOW,
  cacheable ? 3 : 1,
  ...[0, first, last, 0, last - first + 1].flatMap((value) => little(value, 4)),
];
export const memoryWindow64 = (first: number, last: number): Aml => [
  0x8a,
  43,
  0,
  0,
  WINDOW,
  3,
  ...[0, first, last, 0, last - first + 1].flatMap((value) => little(value, 8)),
];
