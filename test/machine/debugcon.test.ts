/** A debug console loses nothing, however slow its reader is. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { startVm } from './harness.ts';

const nasm = '/usr/bin/nasm';
const WORDS = 400_000;

/** Writes the numbers from 0 on, four bytes each: by OUT, and the last by REP OUTSB. */
const SOURCE = `
  bits 32
  org 0x100000
  dd 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)
  dd 0x100000, 0x100000, 0, 0x104000, start
start:
  xor ebx, ebx
next:
  mov eax, ebx
  mov ecx, 4
bytes:
  out 0xe9, al
  shr eax, 8
  loop bytes
  inc ebx
  cmp ebx, ${WORDS - 1}
  jne next
  mov [last], ebx
  mov esi, last
  mov ecx, 4
  mov edx, 0xe9
  rep outsb
  mov al, 0
  out 0xf4, al
  hlt
last:
  dd 0
`;

const skip = existsSync(nasm) ? false : 'nasm is missing (apt-get install nasm)';

test(`${WORDS} numbers reach a reader that begins late`, { skip }, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-debugcon-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const [source, image, path] = ['kernel.asm', 'kernel', 'socket'].map((name) => join(folder, name));
  writeFileSync(source, SOURCE);
  assert.equal(spawnSync(nasm, ['-f', 'bin', '-o', image, source]).status, 0);
  const more = ['-kernel', image, '-chardev', `socket,id=log,path=${path},server=on,wait=on`];
  more.push('-device', 'isa-debugcon,iobase=0xe9,chardev=log', '-device', 'isa-debug-exit,iobase=0xf4,iosize=0x4');
  const vm = startVm(context, { memory: 16, kernel: false, more });
  const pieces: Buffer[] = [];
  while (!existsSync(path)) await setTimeout(50);
  const socket = connect(path).on('error', () => {});
  const closed = new Promise((done) => socket.on('close', done));
  // More than all the buffers on the way hold is written meanwhile.
  await setTimeout(3000);
  socket.on('data', (piece) => pieces.push(piece as Buffer));
  assert.equal(await vm.exit(150), 1, vm.output + vm.complaints);
  await closed;
  const bytes = Buffer.concat(pieces);
  assert.equal(bytes.length, WORDS * 4);
  for (let n = 0; n < WORDS; n++) if (bytes.readUInt32LE(n * 4) !== n) assert.fail(`number ${n} is ${bytes.readUInt32LE(n * 4)}`);
});
