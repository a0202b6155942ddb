/**
 * What an instruction, a port access and an idle guest cost.
 *
 * The integer loops are raw 64-bit code on a bare machine: one vCPU, no devices, in this process. The port access is
 * measured inside a guest (a multiboot image of its own) on a machine as `vivarium run` makes it: two vCPU threads, the
 * machine lock, the UART behind the port.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { BareMachine } from '../../engine/accel/jit/testing.ts';
import { useBranchHints } from '../../engine/host/platform.ts';
import * as S from '../../engine/memory/vcpu-state.ts';
import { readyMarker } from '../../main/guests/initramfs.ts';
import type { BenchOptions } from './bench.ts';
import { bootOptions } from './boot.ts';
import { BenchMachine, findPeer, ours, type Peer } from './machines.ts';
import { hostFacts, median, round, table, writeResult } from './report.ts';

const RAX = 0;
const RCX = 1;
const RDI = 7;
const TABLE = 0x400000;

const bytes = (hex: string): Uint8Array => Uint8Array.from(hex.trim().split(/\s+/), (byte) => Number.parseInt(byte, 16));

interface Loop {
  readonly name: string;
  readonly code: Uint8Array;
  /** Value of RCX for some tens of millions of instructions. */
  readonly times: number;
  /** Throws where RAX or the table at RDI is not what the loop makes after `times` times from RAX = 1. */
  check(times: number, rax: bigint, table: Uint32Array): void;
}

function expect(name: string, actual: unknown, wanted: unknown): void {
  if (actual !== wanted) throw new Error(`${name}: the loop made ${actual}, not ${wanted}`);
}

const loops: readonly Loop[] = [
  {
    name: 'arithmetic (xorshift, registers only)',
    // 1: mov rdx,rax; shl rdx,13; xor rax,rdx; mov rdx,rax; shr rdx,7; xor rax,rdx; mov rdx,rax; shl rdx,17;
    //    xor rax,rdx; dec rcx; jnz 1b; hlt
    code: bytes('48 89 c2 48 c1 e2 0d 48 31 d0 48 89 c2 48 c1 ea 07 48 31 d0 48 89 c2 48 c1 e2 11 48 31 d0 48 ff c9 75 dd f4'),
    times: 5_000_000,
    check(times, rax) {
      let x = 1n;
      for (let n = 0; n < times; n++) {
        x ^= BigInt.asUintN(64, x << 13n);
        x ^= x >> 7n;
        x ^= BigInt.asUintN(64, x << 17n);
      }
      expect('arithmetic', rax, x);
    },
  },
  {
    name: 'hash (FNV-1a over 4 KiB, byte loads)',
    // 2: mov rsi,rdi; mov edx,4096; 1: movzx ebx,byte [rsi]; xor eax,ebx; imul eax,eax,0x01000193; inc rsi; dec edx;
    //    jnz 1b; dec rcx; jnz 2b; hlt
    code: bytes('48 89 fe ba 00 10 00 00 0f b6 1e 31 d8 69 c0 93 01 00 01 48 ff c6 ff ca 75 ee 48 ff c9 75 e1 f4'),
    times: 2500,
    check(times, rax, words) {
      const data = new Uint8Array(words.buffer, words.byteOffset, 4096);
      let hash = 1;
      for (let n = 0; n < times; n++) for (const byte of data) hash = Math.imul(hash ^ byte, 0x01000193);
      expect('hash', rax, BigInt(hash >>> 0));
    },
  },
  {
    name: 'sort (insertion sort of 1024 words, loads, stores, branches)',
    // Fills the table from a linear congruential generator, sorts it, and again.
    // 4: xor edx,edx; 3: imul eax,eax,1664525; add eax,1013904223; mov [rdi+rdx*4],eax; inc edx; cmp edx,1024; jne 3b;
    //    mov edx,1; 2: mov ebx,[rdi+rdx*4]; mov rsi,rdx; 1: mov ebp,[rdi+rsi*4-4]; cmp ebp,ebx; jbe 5f;
    //    mov [rdi+rsi*4],ebp; dec rsi; jnz 1b; 5: mov [rdi+rsi*4],ebx; inc edx; cmp edx,1024; jne 2b; dec rcx; jnz 4b; hlt
    code: bytes(
      '31 d2 69 c0 0d 66 19 00 05 5f f3 6e 3c 89 04 97 ff c2 81 fa 00 04 00 00 75 e8 ba 01 00 00 00 8b 1c 97 48 89 d6 ' +
        '8b 6c b7 fc 39 dd 76 08 89 2c b7 48 ff ce 75 f0 89 1c b7 ff c2 81 fa 00 04 00 00 75 dd 48 ff c9 75 b9 f4',
    ),
    times: 30,
    check(times, rax, words) {
      const wanted = new Uint32Array(1024);
      let value = 1;
      for (let n = 0; n < times; n++)
        for (let i = 0; i < 1024; i++) {
          value = (Math.imul(value, 1664525) + 1013904223) | 0;
          wanted[i] = value;
        }
      wanted.sort();
      expect('sort', rax, BigInt(value >>> 0));
      expect('sort', words.join(), wanted.join());
    },
  },
];

/** Million instructions a second of CPU time of a loop: the best of three runs, after one short run that is checked. */
function rate({ code, times, check }: Loop, tier: 'baseline' | 'both'): number {
  const machine = new BareMachine(tier);
  machine.long();
  const run = (count: number): { instructions: number; seconds: number } => {
    machine.setRegister(RAX, 1n);
    machine.setRegister(RCX, BigInt(count));
    machine.setRegister(RDI, BigInt(TABLE));
    const before = machine.cpu.u64[S.INSTRUCTIONS >> 3];
    // Time of this thread's CPU: other work on the host does not count.
    const began = process.threadCpuUsage();
    machine.execute(code);
    const { user, system } = process.threadCpuUsage(began);
    const seconds = (user + system) / 1e6;
    if (machine.tripleFaulted) throw new Error('the loop faulted');
    return { instructions: Number(machine.cpu.u64[S.INSTRUCTIONS >> 3] - before), seconds };
  };
  const fill = new Uint8Array(4096);
  for (let n = 0; n < fill.length; n++) fill[n] = (n * 37 + 11) & 0xff;
  machine.ram.write(TABLE, fill);
  const short = Math.max(2, Math.floor(times / 500));
  run(short);
  const words = Uint32Array.from({ length: 1024 }, (_, n) => machine.ram.read32(TABLE + n * 4));
  check(short, machine.register(RAX), words);
  let best = 0;
  for (let n = 0; n < 3; n++) {
    const { instructions, seconds } = run(times);
    best = Math.max(best, instructions / seconds / 1e6);
  }
  return best;
}

// --- port access -----------------------------------------------------------------------------------------------------

const ACCESSES = 100_000;
const ROUNDS = 5;

/**
 * A multiboot image (Multiboot 0.6.96, 3.1.1, with the address fields of a flat file) that times ACCESSES accesses to
 * the scratch register of COM1, ROUNDS times, and gives the TSC ticks of each as four bytes on the debug console.
 */
function portImage(read: boolean): Uint8Array {
  const base = 0x100000;
  const code = bytes(
    // cli; mov dx,0x3ff; mov ebp,ROUNDS
    `fa 66 ba ff 03 bd ${ROUNDS.toString(16)} 00 00 00 ` +
      // 1: rdtsc; mov esi,eax; mov ecx,ACCESSES; 2: out dx,al (or in al,dx); dec ecx; jnz 2b; rdtsc; sub eax,esi
      `0f 31 89 c6 b9 00 00 00 00 ${read ? 'ec' : 'ee'} 49 75 fc 0f 31 29 f0 ` +
      // mov cl,4; 3: out 0xe9,al; shr eax,8; dec cl; jnz 3b; dec ebp; jnz 1b
      'b1 04 e6 e9 c1 e8 08 fe c9 75 f7 4d 75 e1 ' +
      // xor eax,eax; out 0xf4,al; hlt
      '31 c0 e6 f4 f4',
  );
  const image = new Uint8Array(32 + code.length);
  const view = new DataView(image.buffer);
  const flags = 0x10000;
  const fields = [0x1badb002, flags, -(0x1badb002 + flags), base, base, base + image.length, base + image.length, base + 32];
  for (const [n, field] of fields.entries()) view.setUint32(n * 4, field >>> 0, true);
  image.set(code, 32);
  view.setUint32(32 + 15, ACCESSES, true);
  return image;
}

/** Nanoseconds of one access, by round. The guest's TSC counts nanoseconds. */
async function portCost(read: boolean, cpus: number): Promise<number[]> {
  const folder = mkdtempSync(join(tmpdir(), 'bench-'));
  try {
    const kernel = join(folder, 'port.bin');
    const output = join(folder, 'ticks');
    writeFileSync(kernel, portImage(read));
    const machine = new BenchMachine(ours, [
      ...[
        '-m',
        '32',
        '-smp',
        String(cpus),
        '-kernel',
        kernel,
        '-debugcon',
        `file:${output}`,
        '-serial',
        'null',
        '-display',
        'none',
      ],
      ...['-device', 'isa-debug-exit,iobase=0xf4,iosize=4', '-no-reboot'],
    ]);
    try {
      await machine.end(120);
      if (machine.status !== 1) throw new Error(`the image for port accesses ended with status ${machine.status}, not 1`);
    } finally {
      machine.kill();
    }
    const ticks = readFileSync(output);
    if (ticks.length !== ROUNDS * 4)
      throw new Error(`the image for port accesses wrote ${ticks.length} bytes, not ${ROUNDS * 4}`);
    return Array.from({ length: ROUNDS }, (_, n) => ticks.readUInt32LE(n * 4) / ACCESSES);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

// --- idle ------------------------------------------------------------------------------------------------------------

const SETTLE_MS = 10_000;
const WATCH_MS = 20_000;

/** Percent of one host core that a guest at its prompt costs. */
async function idleCost(peer: Peer, cpus: number): Promise<number> {
  const machine = new BenchMachine(peer, bootOptions(cpus, 'console=ttyS0 quiet'));
  try {
    await machine.until(new RegExp(`${readyMarker}.*`), 600);
    await delay(SETTLE_MS);
    const before = machine.cpuSeconds;
    const began = machine.elapsed;
    await delay(WATCH_MS);
    return (100 * (machine.cpuSeconds - before)) / (machine.elapsed - began);
  } finally {
    machine.kill();
  }
}

export async function benchLoops({ cpus, only, save, peer: withPeer }: BenchOptions): Promise<void> {
  useBranchHints();
  const wants = (part: string): boolean => only.length === 0 || only.includes(part);
  const host = hostFacts();
  const result: Record<string, unknown> = {};
  if (wants('rates')) {
    const rates = loops.map((loop) => ({
      loop: loop.name,
      baselineMips: round(rate(loop, 'baseline'), 0),
      regionMips: round(rate(loop, 'both'), 0),
    }));
    console.log('Million guest instructions a second of CPU time (bar: baseline at least 100)');
    table(
      ['', 'baseline', 'region'],
      rates.map(({ loop, baselineMips, regionMips }) => [loop, baselineMips, regionMips]),
    );
    result.rates = rates;
  }
  if (wants('port')) {
    const write = round(median(await portCost(false, cpus)), 0);
    const read = round(median(await portCost(true, cpus)), 0);
    console.log(`\nPort access of a vCPU (UART scratch register): OUT ${write} ns, IN ${read} ns (bar: at most 2000)`);
    result.port = { outNs: write, inNs: read };
  }
  if (wants('idle')) {
    const peer = withPeer ? findPeer() : undefined;
    const idle = round(await idleCost(ours, cpus));
    const theirs = peer === undefined ? undefined : round(await idleCost(peer, cpus));
    console.log(
      `\nIdle at the prompt, ${cpus} vCPUs: ${idle} % of a host core (bar: at most 3)${theirs === undefined ? '' : `; QEMU TCG ${theirs} %`}`,
    );
    result.idlePercent = { vivarium: idle, ...(theirs === undefined ? {} : { 'qemu-tcg': theirs }) };
  }
  writeResult('loops', host, result, save);
}
