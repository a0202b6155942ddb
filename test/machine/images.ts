/** Tiny kernels, in machine code: each prints what its boot loader gave it on COM1 and ends by isa-debug-exit. */

const LOAD = 0x100000;
/** Offset of the code in both images. */
const ENTRY = 0x100;

/** Code for 32-bit protected mode with addresses of its own, put together at `LOAD + ENTRY`. */
class Code {
  readonly bytes: number[] = [];
  readonly #texts: { at: number; text: string }[] = [];
  readonly #calls: number[] = [];

  put(...bytes: number[]): this {
    this.bytes.push(...bytes);
    return this;
  }
  u32(value: number): this {
    return this.put(value & 255, (value >> 8) & 255, (value >> 16) & 255, (value >>> 24) & 255);
  }
  /** MOV ESI, the address of a text. */
  text(text: string): this {
    this.put(0xbe);
    this.#texts.push({ at: this.bytes.length, text });
    return this.u32(0);
  }
  /** Prints the text at ESI up to its NUL. */
  print(): this {
    this.put(0xe8);
    this.#calls.push(this.bytes.length);
    return this.u32(0);
  }
  /** Port 0xf4 gets `value`: the exit status is twice that and one. */
  exit(value: number): this {
    // MOV DX, 0xf4; MOV AL, value; OUT DX, AL; HLT; JMP back to the HLT
    return this.put(0x66, 0xba, 0xf4, 0, 0xb0, value, 0xee, 0xf4, 0xeb, 0xfd);
  }

  finish(): number[] {
    const patch = (at: number, value: number): void => {
      for (let i = 0; i < 4; i++) this.bytes[at + i] = (value >> (8 * i)) & 255;
    };
    for (const at of this.#calls) patch(at, this.bytes.length - (at + 4));
    // next: LODSB; TEST AL, AL; JZ done; MOV DX, 0x3f8; OUT DX, AL; JMP next; done: RET
    this.put(0xac, 0x84, 0xc0, 0x74, 7, 0x66, 0xba, 0xf8, 3, 0xee, 0xeb, 0xf4, 0xc3);
    for (const { at, text } of this.#texts) {
      patch(at, LOAD + ENTRY + this.bytes.length);
      this.put(...[...text].map((c) => c.charCodeAt(0)), 0);
    }
    return this.bytes;
  }
}

const STACK = [0xbc, 0, 0, 9, 0] as const; // MOV ESP, 0x90000

/** Prints "ready" and then sends back what COM1 gets. */
export function echoImage(): Uint8Array {
  const code = new Code()
    .put(...STACK)
    .text('ready\n')
    .print();
  // again: MOV DX, 0x3fd; IN AL, DX; TEST AL, 1; JZ again; MOV DX, 0x3f8; IN AL, DX; OUT DX, AL; JMP again
  code.put(0x66, 0xba, 0xfd, 3, 0xec, 0xa8, 1, 0x74, 0xf7, 0x66, 0xba, 0xf8, 3, 0xec, 0xee, 0xeb, 0xef);
  return multiboot(code);
}

/** Prints its command line and its module. */
export function multibootImage(): Uint8Array {
  const code = new Code().put(...STACK);
  // CMP EAX, the loader's magic; JE over the other text
  code.text('multiboot magic\n').put(0x3d).u32(0x2badb002).put(0x74, 5).text('wrong magic\n').print();
  code.put(0x8b, 0x73, 0x10).print(); // MOV ESI, [EBX+16]: the command line
  code.text('\n').print();
  code.put(0x8b, 0x7b, 0x18, 0x8b, 0x37).print(); // MOV EDI, [EBX+24]; MOV ESI, [EDI]: the module
  return multiboot(code.exit(0x10));
}

/** Multiboot 0.6.96, 3.1: a flat image with its addresses in the header. */
function multiboot(code: Code): Uint8Array {
  const body = code.finish();
  const image = new Uint8Array(ENTRY + body.length);
  const view = new DataView(image.buffer);
  const flags = 0x10000;
  const end = LOAD + image.length;
  [0x1badb002, flags, -(0x1badb002 + flags), LOAD, LOAD, end, end + 4096, LOAD + ENTRY].forEach((word, n) => {
    view.setUint32(n * 4, word >>> 0, true);
  });
  image.set(body, ENTRY);
  return image;
}

/** An ELF file, of 32 or 64 bits, with the note that says where PVH enters. */
export function pvhImage(bits: 32 | 64): Uint8Array {
  const code = new Code().put(...STACK);
  // CMP DWORD [EBX], the start info's magic; JE over the other text
  code.text('start info\n').put(0x81, 0x3b).u32(0x336ec578).put(0x74, 5).text('wrong magic\n').print();
  code.put(0x8b, 0x73, 24).print(); // MOV ESI, [EBX+24]: the command line
  code.text('\n').print();
  code.put(0x8b, 0x7b, 16, 0x8b, 0x37).print(); // MOV EDI, [EBX+16]; MOV ESI, [EDI]: the module
  const body = code.exit(0x11).finish();
  const image = new Uint8Array(ENTRY + body.length);
  const view = new DataView(image.buffer);
  const wide = bits === 64;
  image.set([0x7f, 0x45, 0x4c, 0x46, wide ? 2 : 1, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, wide ? 62 : 3, true);
  view.setUint32(20, 1, true);
  const word = (at: number, value: number): void => view.setUint32(at, value, true);
  const table = 64;
  word(24, LOAD + ENTRY);
  word(wide ? 32 : 28, table);
  view.setUint16(wide ? 52 : 40, wide ? 64 : 52, true);
  view.setUint16(wide ? 54 : 42, wide ? 56 : 32, true);
  view.setUint16(wide ? 56 : 44, 2, true);
  /** A program header: type, offset and length in the file, physical address. */
  const header = (n: number, type: number, offset: number, length: number, address: number): void => {
    const at = table + n * (wide ? 56 : 32);
    word(at, type);
    const fields = wide ? [8, 16, 24, 32, 40] : [4, 8, 12, 16, 20];
    [offset, address, address, length, length].forEach((value, i) => {
      word(at + fields[i], value);
    });
  };
  const note = table + 2 * 56;
  header(0, 1, 0, image.length, LOAD);
  header(1, 4, note, 24, LOAD + note);
  [4, wide ? 8 : 4, 18, 0x006e6558, LOAD + ENTRY, 0].forEach((value, n) => {
    word(note + n * 4, value);
  });
  image.set(body, ENTRY);
  return image;
}

/** A disk of 2 MiB, which is more than one cylinder: its boot sector prints a text, reads sector 2 by INT 13h, prints that, and ends the machine. */
export function bootDisk(text = 'the boot sector'): Uint8Array {
  const disk = new Uint8Array(2 << 20);
  disk.set([0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0]); // XOR AX, AX; MOV DS, AX; MOV ES, AX
  disk.set([0x52, 0xbe, 0x36, 0x7c, 0xe8, 0x1d, 0, 0x5a], 6); // PUSH DX; MOV SI, text; CALL print; POP DX
  // MOV AX, 0x0201; MOV BX, 0x7e00; MOV CX, 2; MOV DH, 0; INT 0x13; MOV SI, 0x7e00; CALL print
  disk.set([0xb8, 1, 2, 0xbb, 0, 0x7e, 0xb9, 2, 0, 0xb6, 0, 0xcd, 0x13, 0xbe, 0, 0x7e, 0xe8, 9, 0], 14);
  disk.set([0xba, 0xf4, 0, 0xb0, 0x12, 0xee, 0xf4, 0xeb, 0xfd], 33); // MOV DX, 0xf4; MOV AL, 0x12; OUT; HLT; JMP
  // next: LODSB; TEST AL, AL; JZ done; MOV DX, 0x3f8; OUT DX, AL; JMP next; done: RET
  disk.set([0xac, 0x84, 0xc0, 0x74, 6, 0xba, 0xf8, 3, 0xee, 0xeb, 0xf5, 0xc3], 42);
  disk.set(new TextEncoder().encode(`${text}\n`), 0x36);
  disk.set([0x55, 0xaa], 510);
  disk.set(new TextEncoder().encode('the second sector\n'), 512);
  return disk;
}
