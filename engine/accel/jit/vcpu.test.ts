/** The dispatcher, where assembly tests do not reach: events between the runs of translated code. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as S from '../../memory/vcpu-state.ts';
import { CR4, FLAG } from '../../x86/system/cpu.ts';
import { BareMachine } from './testing.ts';

test('an interrupt between a branch and its target leaves the branch as it is', () => {
  const machine = new BareMachine('baseline');
  const { cpu, ram, system } = machine;
  machine.flat32();
  // An IDT at 0x5000 whose gate 0x30 leads to 0x100080, in the page of the code.
  ram.write32(0x5000 + 0x30 * 8, 0x00080080);
  ram.write32(0x5004 + 0x30 * 8, 0x00108e00);
  ram.write32(0x4008, 0x0000ffff);
  ram.write32(0x400c, 0x00cf9b00);
  system.segments.set(S.GDTR, 0, 0x4000, 0x17, 0);
  system.segments.set(S.IDTR, 0, 0x5000, 0x7ff, 0);
  machine.setRegister(4, 0x80000n);
  cpu.eflags = FLAG.IF | 2;
  // Reading the time-stamp counter is when the request comes, and nothing looks at it before the jump.
  let reads = 0;
  machine.tsc = () => {
    if (reads++ === 0) Atomics.or(cpu.i32, S.PENDING >> 2, S.Pending.INTR);
    return 0;
  };
  machine.acknowledge = () => 0x30;
  const code = new Uint8Array(0x90).fill(0xf4);
  // again: RDTSC; JMP 0x20
  code.set([0x0f, 0x31, 0xeb, 0x1c]);
  // 0x20: INC ECX; CMP ECX, 3; JNE again; HLT
  code.set([0x41, 0x83, 0xf9, 0x03, 0x75, 0xda, 0xf4], 0x20);
  // The handler: INC EBX; IRET
  code.set([0x43, 0xcf], 0x80);
  machine.execute(code);
  assert.equal(machine.register(3), 1n, 'times that the handler was entered');
  assert.equal(machine.register(1), 3n);
  assert.equal(machine.register(4), 0x80000n);
});

test('with address line 20 held low the second megabyte is the first', () => {
  for (const on of [true, false]) {
    const machine = new BareMachine('baseline');
    machine.flat32();
    machine.ram.write32(0x1234, 0x11111111);
    machine.ram.write32(0x101234, 0x22222222);
    machine.a20 = on;
    // MOV EAX, [0x101234]; MOV dword [0x101238], 5; HLT, in an even megabyte
    const code = Uint8Array.of(0xa1, 0x34, 0x12, 0x10, 0, 0xc7, 0x05, 0x38, 0x12, 0x10, 0, 5, 0, 0, 0, 0xf4);
    machine.execute(code, 0x200000);
    assert.equal(machine.register(0), on ? 0x22222222n : 0x11111111n);
    assert.equal(machine.ram.read32(on ? 0x101238 : 0x1238), 5);
  }
});

test('a loop that goes down over the start of a page reads from both pages', () => {
  // MOV RSI, 9020h; MOV ECX, 40h; 1: ADD RAX, [RSI]; DEC RSI; DEC ECX; JNZ 1b; HLT
  const code = Uint8Array.of(
    ...[0x48, 0xc7, 0xc6, 0x20, 0x90, 0, 0],
    ...[0xb9, 0x40, 0, 0, 0],
    ...[0x48, 0x03, 0x06, 0x48, 0xff, 0xce, 0xff, 0xc9, 0x75, 0xf7],
    0xf4,
  );
  const sums = (['baseline', 'region'] as const).map((tier) => {
    const machine = new BareMachine(tier);
    machine.long();
    const { ram } = machine;
    for (let n = 0; n < 512; n++) ram.write64(0x10000 + n * 8, (n * 4096) | 7);
    // The pages do not follow each other in memory.
    ram.write64(0x10000 + 8 * 8, 0x30007);
    ram.write64(0x10000 + 9 * 8, 0x20007);
    ram.write64(0x3000, 0x10007);
    machine.system.paging.flush();
    for (let n = 0; n < 4096; n++) {
      ram.write8(0x20000 + n, (n * 7) & 0xff);
      ram.write8(0x30000 + n, (n * 13 + 5) & 0xff);
    }
    machine.execute(code);
    machine.setRegister(0, 0n);
    machine.execute(code);
    return machine.register(0);
  });
  assert.equal(sums[1], sums[0]);
});

test('code in global pages stays through MOV CR3, that in others does not; INVLPG takes both', () => {
  const reload = [0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]; // MOV RAX, CR3; MOV CR3, RAX
  const invalidate = [0x0f, 0x01, 0x39]; // INVLPG [RCX]
  for (const [flags, flush, expected] of [
    [0x007, reload, 0x11n],
    [0x107, reload, 2n],
    [0x007, invalidate, 0x11n],
    [0x107, invalidate, 0x11n],
  ] as const) {
    const machine = new BareMachine();
    machine.long();
    const { cpu, ram, system } = machine;
    cpu.set32(S.CR4, cpu.cr4 | CR4.PGE);
    // Linear 400000h by a page of 4 KiB: first 200000h, then what is stored.
    ram.write64(0x3010, 0x5007);
    ram.write64(0x5000, 0x200000 | flags);
    ram.write(0x200000, Uint8Array.of(0x48, 0x83, 0xc3, 0x01, 0xc3)); // ADD RBX, 1; RET
    ram.write(0x201000, Uint8Array.of(0x48, 0x83, 0xc3, 0x10, 0xc3)); // ADD RBX, 10h; RET
    system.paging.flush();
    machine.setRegister(4, 0x80000n);
    machine.setRegister(2, BigInt(0x201000 | flags));
    machine.execute(
      Uint8Array.of(
        ...[0x48, 0xc7, 0xc1, 0, 0, 0x40, 0], // MOV RCX, 400000h
        ...[0xff, 0xd1], // CALL RCX
        ...[0x48, 0x89, 0x14, 0x25, 0, 0x50, 0, 0], // MOV [5000h], RDX
        ...flush,
        ...[0xff, 0xd1, 0xf4], // CALL RCX; HLT
      ),
    );
    assert.equal(machine.register(3), expected, `flags ${flags.toString(16)}`);
  }
});

test('an instruction across two pages is decoded anew when the second is mapped elsewhere', () => {
  const machine = new BareMachine();
  machine.long();
  const { ram, system } = machine;
  // Linear 400FFEh: ADD RBX, 1; RET. Its second page is 201000h, then 202000h, where it adds 10h.
  ram.write64(0x3010, 0x5007);
  ram.write64(0x5000, 0x200007);
  ram.write64(0x5008, 0x201007);
  ram.write(0x200ffe, Uint8Array.of(0x48, 0x83));
  ram.write(0x201000, Uint8Array.of(0xc3, 0x01, 0xc3));
  ram.write(0x202000, Uint8Array.of(0xc3, 0x10, 0xc3));
  system.paging.flush();
  machine.setRegister(4, 0x80000n);
  machine.setRegister(2, 0x202007n);
  machine.execute(
    Uint8Array.of(
      ...[0x48, 0xc7, 0xc1, 0xfe, 0x0f, 0x40, 0], // MOV RCX, 400FFEh
      ...[0xbe, 0x03, 0, 0, 0, 0xff, 0xd1, 0xff, 0xce, 0x75, 0xfa], // MOV ESI, 3; 1: CALL RCX; DEC ESI; JNZ 1b
      ...[0x48, 0x89, 0x14, 0x25, 0x08, 0x50, 0, 0], // MOV [5008h], RDX
      ...[0x0f, 0x01, 0x79, 0x02], // INVLPG [RCX + 2]
      ...[0x48, 0x8d, 0x41, 0x04, 0xff, 0xd0], // LEA RAX, [RCX + 4]; CALL RAX: the RET
      ...[0xff, 0xd1, 0xff, 0xd1, 0xf4], // CALL RCX; CALL RCX; HLT
    ),
  );
  assert.equal(machine.register(3), 0x23n);
});

test('SHA256RNDS2 takes from XMM0 what the instruction before left there', () => {
  // MOV RSI, 8000h; MOVDQU XMM1, [RSI]; MOVDQA XMM0, XMM1; PADDD XMM0, XMM1; SHA256RNDS2 XMM2, XMM1; MOVDQU [RSI], XMM2; HLT
  const code = Uint8Array.of(
    ...[0x48, 0xc7, 0xc6, 0, 0x80, 0, 0],
    ...[0xf3, 0x0f, 0x6f, 0x0e, 0x66, 0x0f, 0x6f, 0xc1, 0x66, 0x0f, 0xfe, 0xc1],
    ...[0x0f, 0x38, 0xcb, 0xd1, 0xf3, 0x0f, 0x7f, 0x16],
    0xf4,
  );
  const results = (['baseline', 'region'] as const).map((tier) => {
    const machine = new BareMachine(tier);
    machine.long();
    for (let n = 0; n < 16; n++) machine.ram.write8(0x8000 + n, n * 37 + 11);
    machine.execute(code);
    return [0, 4, 8, 12].map((n) => machine.ram.read32(0x8000 + n) >>> 0);
  });
  assert.deepEqual(results[1], results[0]);
});

test('a branch of 16 bits in 32-bit code cuts the instruction pointer, in a region too', () => {
  for (const tier of ['baseline', 'region'] as const) {
    const machine = new BareMachine(tier);
    machine.flat32();
    // XOR EAX, EAX; 66h JZ +3; HLT three times; MOV EBX, 2; HLT
    const code = Uint8Array.of(0x31, 0xc0, 0x66, 0x74, 0x03, 0xf4, 0xf4, 0xf4, 0xbb, 2, 0, 0, 0, 0xf4);
    // Where the target is by its lower half: MOV EBX, 1; HLT
    machine.ram.write(0x2008, Uint8Array.of(0xbb, 1, 0, 0, 0, 0xf4));
    machine.ram.write(0x212000, code);
    const start = (address: number): void => {
      const jump = new DataView(new ArrayBuffer(5));
      jump.setUint8(0, 0xe9);
      jump.setInt32(1, address - 0x300005, true);
      machine.execute(new Uint8Array(jump.buffer), 0x300000);
    };
    // What lies at the whole sum was executed before, and is known.
    for (let n = 0; n < 3; n++) start(0x212008);
    assert.equal(machine.register(3), 2n);
    for (let n = 0; n < 3; n++) start(0x212000);
    assert.equal(machine.register(3), 1n, tier);
  }
});
