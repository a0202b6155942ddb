/**
 * Starting kernels without firmware: Linux bzImage by its boot protocol (Documentation/arch/x86/boot.rst), multiboot 1
 * images, and ELF kernels with a PVH entry note (Xen's x86/HVM direct boot ABI).
 */
import type { PhysicalMemory } from '../memory/physical.ts';
import * as S from '../memory/vcpu-state.ts';
import { CR0 } from '../x86/system/cpu.ts';
import type { System } from '../x86/system/helpers.ts';
import { HIGH_RAM_BASE, LOW_RAM_LIMIT } from './layout.ts';

export class BootError extends Error {
  readonly code: string;
  readonly field: string;
  constructor(code: string, field: string, message: string) {
    super(message);
    this.code = code;
    this.field = field;
  }
}

export interface BootFiles {
  readonly kernelName: string;
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array;
  readonly append: string;
}

export interface BootContext {
  readonly memory: PhysicalMemory;
  readonly system: System;
  /** RAM that is taken by tables at its top: [start, end). */
  readonly reserved: { readonly start: number; readonly end: number };
  readonly rsdp: number;
}

const ZERO_PAGE = 0x90000;
const COMMAND_LINE = 0x91000;
const GDT = 0x8f000;
const COMMAND_LINE_ROOM = 0x4000;

/** E820: address, length, type (1 RAM, 2 reserved, 3 ACPI). */
export function e820(memory: PhysicalMemory, reserved: { start: number; end: number }): [number, number, number][] {
  const low = Math.min(memory.ramBytes, LOW_RAM_LIMIT);
  const map: [number, number, number][] = [
    [0, 0x9fc00, 1],
    [0x9fc00, 0x400, 2],
    [0xf0000, 0x10000, 2],
    [0x100000, reserved.start - 0x100000, 1],
    [reserved.start, reserved.end - reserved.start, 3],
  ];
  if (reserved.end < low) map.push([reserved.end, low - reserved.end, 1]);
  map.push([0xfeffc000, 0x4000, 2], [0xfffc0000, 0x40000, 2]);
  if (memory.ramBytes > low) map.push([HIGH_RAM_BASE, memory.ramBytes - low, 1]);
  return map;
}

/** Loads the kernel and sets the first vCPU up to enter it. Throws a BootError that says what is wrong with a file. */
export function loadKernel(context: BootContext, files: BootFiles): void {
  const { kernel, kernelName } = files;
  const view = new DataView(kernel.buffer, kernel.byteOffset, kernel.byteLength);
  if (isLinux(kernel)) {
    loadBzImage(context, files, view);
    return;
  }
  const multiboot = findMultiboot(view);
  if (multiboot !== undefined) {
    loadMultiboot(context, files, view, multiboot);
    return;
  }
  if (kernel.length > 64 && view.getUint32(0, false) === 0x7f454c46) {
    const entry = pvhEntry(view);
    if (entry !== undefined) {
      loadPvh(context, files, view, entry);
      return;
    }
    throw new BootError(
      'bad-kernel',
      'boot.kernel',
      `${kernelName} is an ELF file without a PVH note or a multiboot header; give a bzImage (/boot/vmlinuz-...) or a kernel built with CONFIG_PVH`,
    );
  }
  throw new BootError(
    'bad-kernel',
    'boot.kernel',
    `${kernelName} is not a kernel that can be started: it has no Linux boot header, no multiboot header and no PVH note`,
  );
}

/** Whether a file has the header of Linux's boot protocol: `HdrS` at 0x202. */
export function isLinux(kernel: Uint8Array): boolean {
  const { buffer, byteOffset, length } = kernel;
  return length > 0x260 && new DataView(buffer, byteOffset, length).getUint32(0x202, true) === 0x53726448;
}

// --- Linux -------------------------------------------------------------------------------------------------------

function loadBzImage(context: BootContext, files: BootFiles, view: DataView): void {
  const { memory } = context;
  const { kernel, initrd, append, kernelName } = files;
  const version = view.getUint16(0x206, true);
  if (version < 0x204 || (view.getUint8(0x211) & 1) === 0)
    throw new BootError(
      'bad-kernel',
      'boot.kernel',
      `${kernelName} is a kernel too old to be started directly (boot protocol ${version >> 8}.${version & 255}; 2.4 or newer and bzImage are needed)`,
    );
  const setupSectors = view.getUint8(0x1f1) || 4;
  const setupBytes = (setupSectors + 1) * 512;
  const declared = view.getUint32(0x1f4, true) * 16;
  if (setupBytes + declared > kernel.length + 15)
    throw new BootError(
      'bad-kernel',
      'boot.kernel',
      `${kernelName} is truncated: its header promises ${setupBytes + declared} bytes, the file has ${kernel.length}`,
    );
  const code = kernel.subarray(setupBytes);
  const loadAt = 0x100000;
  const initSize = version >= 0x20a ? view.getUint32(0x260, true) : code.length * 4;
  const top = Math.min(memory.ramBytes, LOW_RAM_LIMIT);
  const usable = Math.min(top, context.reserved.start);
  const preferred = version >= 0x20a ? view.getUint32(0x258, true) : loadAt;
  if (preferred + initSize > usable)
    throw new BootError(
      'no-memory',
      'memoryMiB',
      `${kernelName} needs ${Math.ceil((preferred + initSize) / 1048576)} MiB of memory to start; the machine has ${Math.floor(memory.ramBytes / 1048576)} MiB`,
    );

  memory.write(loadAt, code);
  const page = new Uint8Array(4096);
  const headerEnd = Math.min(0x202 + view.getUint8(0x201), 0x280);
  page.set(kernel.subarray(0x1f1, headerEnd), 0x1f1);
  const out = new DataView(page.buffer);
  out.setUint8(0x210, 0xff); // loader type: undefined
  out.setUint8(0x211, (page[0x211] & ~0x20) | 0x80); // heap usable, messages allowed
  out.setUint16(0x224, 0xfe00, true);
  const limit = version >= 0x206 ? out.getUint32(0x238, true) : 255;
  const line = new TextEncoder().encode(append);
  if (line.length > limit || line.length + 1 > COMMAND_LINE_ROOM)
    throw new BootError(
      'bad-config',
      'boot.append',
      `the kernel command line is ${line.length} bytes long; ${kernelName} takes ${Math.min(limit, COMMAND_LINE_ROOM - 1)}`,
    );
  memory.write(COMMAND_LINE, line);
  memory.write8(COMMAND_LINE + line.length, 0);
  out.setUint32(0x228, COMMAND_LINE, true);

  if (initrd !== undefined) {
    const maximum = version >= 0x203 ? out.getUint32(0x22c, true) : 0x37ffffff;
    const end = Math.min(usable, maximum + 1);
    const at = Math.floor((end - initrd.length) / 4096) * 4096;
    if (at < preferred + initSize)
      throw new BootError(
        'no-memory',
        'memoryMiB',
        `kernel and initrd (${Math.ceil(initrd.length / 1048576)} MiB) do not fit into ${Math.floor(memory.ramBytes / 1048576)} MiB of memory`,
      );
    memory.write(at, initrd);
    out.setUint32(0x218, at, true);
    out.setUint32(0x21c, initrd.length, true);
  }

  // screen_info: VGA text, 80 by 25.
  out.setUint8(0x06, 3);
  out.setUint8(0x07, 80);
  out.setUint8(0x0e, 25);
  out.setUint8(0x0f, 1);
  out.setUint16(0x10, 16, true);
  out.setUint32(0x1e0, Math.min(0xffffffff, (usable - 0x100000) / 1024), true);
  out.setBigUint64(0x70, BigInt(context.rsdp), true);
  const map = e820(memory, context.reserved);
  out.setUint8(0x1e8, map.length);
  for (const [n, [base, length, type]] of map.entries()) {
    out.setBigUint64(0x2d0 + n * 20, BigInt(base), true);
    out.setBigUint64(0x2d8 + n * 20, BigInt(length), true);
    out.setUint32(0x2e0 + n * 20, type, true);
  }
  memory.write(ZERO_PAGE, page);
  enterProtected(context, loadAt, (cpu) => {
    cpu.setNumber(S.GPR + 48, ZERO_PAGE); // ESI
  });
}

/** 32-bit flat protected mode without paging, interrupts off: what all three protocols want. */
function enterProtected(context: BootContext, entry: number, registers: (cpu: System['cpu']) => void): void {
  const { memory, system } = context;
  const { cpu, segments } = system;
  // Linux's boot protocol has selectors 0x10 (code) and 0x18 (data).
  memory.write64(GDT, 0);
  memory.write64(GDT + 8, 0);
  for (const [n, high] of [0x00cf9b00, 0x00cf9300].entries()) {
    memory.write32(GDT + 16 + n * 8, 0x0000ffff);
    memory.write32(GDT + 20 + n * 8, high);
  }
  cpu.set32(S.CR0, CR0.PE | CR0.ET);
  segments.set(S.GDTR, 0, GDT, 31, 0);
  segments.set(S.IDTR, 0, 0, 0, 0);
  segments.set(S.CS, 0x10, 0, 0xffffffff, 0xc09b);
  for (const index of [S.DS, S.ES, S.SS, S.FS, S.GS]) segments.set(index, 0x18, 0, 0xffffffff, 0xc093);
  for (let n = 0; n < 16; n++) cpu.setNumber(S.GPR + n * 8, 0);
  registers(cpu);
  cpu.setNumber(S.NEXT_RIP, entry);
  system.registers.updateFpuBlock();
  segments.updateMode();
}

// --- multiboot 1 -------------------------------------------------------------------------------------------------

function findMultiboot(view: DataView): number | undefined {
  const end = Math.min(view.byteLength, 8192) - 12;
  for (let at = 0; at <= end; at += 4) {
    if (view.getUint32(at, true) !== 0x1badb002) continue;
    if ((view.getUint32(at, true) + view.getUint32(at + 4, true) + view.getUint32(at + 8, true)) >>> 0 === 0) return at;
  }
  return undefined;
}

function loadMultiboot(context: BootContext, files: BootFiles, view: DataView, header: number): void {
  const { memory } = context;
  const { kernel, kernelName, initrd, append } = files;
  const flags = view.getUint32(header + 4, true);
  let entry: number;
  let start: number;
  let end: number;
  if ((flags & 0x10000) !== 0) {
    const headerAddress = view.getUint32(header + 12, true);
    const loadAddress = view.getUint32(header + 16, true);
    const loadEnd = view.getUint32(header + 20, true);
    const bssEnd = view.getUint32(header + 24, true);
    entry = view.getUint32(header + 28, true);
    const from = header - (headerAddress - loadAddress);
    const size = loadEnd === 0 ? kernel.length - from : loadEnd - loadAddress;
    if (from < 0 || size < 0 || from + size > kernel.length)
      throw new BootError(
        'bad-kernel',
        'boot.kernel',
        `${kernelName}: the addresses of its multiboot header lie outside of the file`,
      );
    start = loadAddress;
    end = Math.max(loadAddress + size, bssEnd);
    checkRange(context, kernelName, loadAddress, end - loadAddress);
    memory.write(loadAddress, kernel.subarray(from, from + size));
    if (bssEnd > loadAddress + size) memory.write(loadAddress + size, new Uint8Array(bssEnd - loadAddress - size));
  } else ({ entry, start, end } = loadElf(context, files, view));

  // What the loader tells lies where no kernel does: under the EBDA, or low where the image reaches so far.
  const info = start < 0x92000 && end > 0x90000 ? 0x9000 : 0x90000;
  const at = Math.ceil(Math.max(end, 0x100000) / 4096) * 4096;
  let modules = 0;
  if (initrd !== undefined) {
    checkRange(context, 'the initrd', at, initrd.length);
    memory.write(at, initrd);
    modules = info + 0x200;
    memory.write32(modules, at);
    memory.write32(modules + 4, at + initrd.length);
    memory.write32(modules + 8, info + 0x300);
    memory.write32(modules + 12, 0);
    memory.write8(info + 0x300, 0);
  }
  const line = new TextEncoder().encode(`${kernelName} ${append}`);
  memory.write(info + 0x1000, line);
  memory.write8(info + 0x1000 + line.length, 0);
  const map = e820(memory, context.reserved);
  for (const [n, [base, length, type]] of map.entries()) {
    memory.write32(info + 0x400 + n * 24, 20);
    memory.write64(info + 0x404 + n * 24, base);
    memory.write64(info + 0x40c + n * 24, length);
    memory.write32(info + 0x414 + n * 24, type);
  }
  const loader = new TextEncoder().encode('vivarium\0');
  memory.write(info + 0x800, loader);
  memory.write(info, new Uint8Array(120));
  memory.write32(info, 0x1 | 0x4 | (modules === 0 ? 0 : 0x8) | 0x40 | 0x200);
  memory.write32(info + 4, 639);
  memory.write32(info + 8, Math.floor((Math.min(memory.ramBytes, LOW_RAM_LIMIT) - 0x100000) / 1024));
  memory.write32(info + 16, info + 0x1000);
  memory.write32(info + 20, modules === 0 ? 0 : 1);
  memory.write32(info + 24, modules);
  memory.write32(info + 44, map.length * 24);
  memory.write32(info + 48, info + 0x400);
  memory.write32(info + 64, info + 0x800);
  enterProtected(context, entry, (cpu) => {
    cpu.setNumber(S.GPR, 0x2badb002);
    cpu.setNumber(S.GPR + 24, info);
  });
}

// --- ELF and PVH -------------------------------------------------------------------------------------------------

function checkRange(context: BootContext, name: string, start: number, length: number): void {
  if (start < 0 || start + length > Math.min(context.memory.ramBytes, LOW_RAM_LIMIT, context.reserved.start))
    throw new BootError(
      'no-memory',
      'memoryMiB',
      `${name} wants memory up to ${Math.ceil((start + length) / 1048576)} MiB; the machine has ${Math.floor(context.memory.ramBytes / 1048576)} MiB`,
    );
}

interface ElfSegment {
  type: number;
  offset: number;
  physical: number;
  fileBytes: number;
  memoryBytes: number;
}

function elfSegments(view: DataView): { segments: ElfSegment[]; entry: number } {
  const wide = view.getUint8(4) === 2;
  const word = (at: number): number => (wide ? Number(view.getBigUint64(at, true)) : view.getUint32(at, true));
  const entry = word(0x18);
  const table = word(wide ? 0x20 : 0x1c);
  const size = view.getUint16(wide ? 0x36 : 0x2a, true);
  const count = view.getUint16(wide ? 0x38 : 0x2c, true);
  const segments: ElfSegment[] = [];
  for (let n = 0; n < count; n++) {
    const at = table + n * size;
    if (at + (wide ? 56 : 32) > view.byteLength)
      throw new BootError('bad-kernel', 'boot.kernel', 'the ELF program header lies outside of the file');
    segments.push({
      type: view.getUint32(at, true),
      offset: word(at + (wide ? 8 : 4)),
      physical: word(at + (wide ? 24 : 12)),
      fileBytes: word(at + (wide ? 32 : 16)),
      memoryBytes: word(at + (wide ? 40 : 20)),
    });
  }
  return { segments, entry };
}

function loadElf(context: BootContext, files: BootFiles, view: DataView): { entry: number; start: number; end: number } {
  const { segments, entry } = elfSegments(view);
  let start = Number.POSITIVE_INFINITY;
  let end = 0;
  for (const segment of segments) {
    if (segment.type !== 1 || segment.memoryBytes === 0) continue;
    if (segment.offset + segment.fileBytes > files.kernel.length)
      throw new BootError(
        'bad-kernel',
        'boot.kernel',
        `${files.kernelName} is truncated: an ELF segment lies outside of the file`,
      );
    checkRange(context, files.kernelName, segment.physical, segment.memoryBytes);
    context.memory.write(segment.physical, files.kernel.subarray(segment.offset, segment.offset + segment.fileBytes));
    const rest = segment.memoryBytes - segment.fileBytes;
    if (rest > 0) context.memory.write(segment.physical + segment.fileBytes, new Uint8Array(rest));
    start = Math.min(start, segment.physical);
    end = Math.max(end, segment.physical + segment.memoryBytes);
  }
  return { entry, start, end };
}

/** The 32-bit entry of the XEN_ELFNOTE_PHYS32_ENTRY note (type 18). */
function pvhEntry(view: DataView): number | undefined {
  for (const segment of elfSegments(view).segments) {
    if (segment.type !== 4) continue;
    const end = Math.min(segment.offset + segment.fileBytes, view.byteLength);
    for (let at = segment.offset; at + 12 <= end; ) {
      const nameBytes = view.getUint32(at, true);
      const valueBytes = view.getUint32(at + 4, true);
      const type = view.getUint32(at + 8, true);
      const value = at + 12 + Math.ceil(nameBytes / 4) * 4;
      if (type === 18 && nameBytes === 4 && value + 4 <= end && view.getUint32(at + 12, true) === 0x006e6558)
        return view.getUint32(value, true);
      at = value + Math.ceil(valueBytes / 4) * 4;
    }
  }
  return undefined;
}

function loadPvh(context: BootContext, files: BootFiles, view: DataView, entry: number): void {
  const { memory } = context;
  const { end } = loadElf(context, files, view);
  const info = 0x9000;
  const line = new TextEncoder().encode(files.append);
  memory.write(COMMAND_LINE, line);
  memory.write8(COMMAND_LINE + line.length, 0);
  memory.write(info, new Uint8Array(64));
  memory.write32(info, 0x336ec578);
  memory.write32(info + 4, 1);
  if (files.initrd !== undefined) {
    const at = Math.ceil(Math.max(end, 0x100000) / 4096) * 4096;
    checkRange(context, 'the initrd', at, files.initrd.length);
    memory.write(at, files.initrd);
    memory.write32(info + 12, 1);
    memory.write64(info + 16, 0x9100);
    memory.write64(0x9100, at);
    memory.write64(0x9108, files.initrd.length);
    memory.write64(0x9110, 0);
    memory.write64(0x9118, 0);
  }
  memory.write64(info + 24, COMMAND_LINE);
  memory.write64(info + 32, context.rsdp);
  const map = e820(memory, context.reserved);
  memory.write64(info + 40, 0x9400);
  memory.write32(info + 48, map.length);
  for (const [n, [base, length, type]] of map.entries()) {
    memory.write64(0x9400 + n * 24, base);
    memory.write64(0x9408 + n * 24, length);
    memory.write32(0x9410 + n * 24, type);
    memory.write32(0x9414 + n * 24, 0);
  }
  enterProtected(context, entry, (cpu) => cpu.setNumber(S.GPR + 24, info));
}
