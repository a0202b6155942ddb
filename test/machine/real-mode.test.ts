/** What a kernel finds that goes back to real mode: the interrupts and the timer as a BIOS leaves them. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startVm } from './harness.ts';

const nasm = '/usr/bin/nasm';

/** Loaded at 8000h, over what other loaders use for their tables; waits for two ticks and an ISA line of pc-testdev. */
const SOURCE = `
  bits 32
  org 0x8000
  dd 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)
  dd 0x8000, 0x8000, 0, 0xb000, start
start:
  lgdt [gdtr]
  jmp 8:sixteen
  bits 16
sixteen:
  mov ax, 16
  mov ds, ax
  mov ss, ax
  mov eax, cr0
  and al, 0xfe
  mov cr0, eax
  jmp 0:real
real:
  xor ax, ax
  mov ds, ax
  mov ss, ax
  mov sp, 0x7000
  lidt [idtr]
  sti
  hlt
  hlt
  cmp dword [filler], 0x12345678
  jne bad
  cmp dword [filler + 0x1ffc], 0x12345678
  jne bad
  ; IRQ 11, with a handler of our own, in the shadow of STI
  mov word [0x73 * 4], line
  mov word [0x73 * 4 + 2], 0
  in al, 0xa1
  and al, 0xf7
  out 0xa1, al
  cli
  mov dx, 0x200b
  mov al, 1
  out dx, al
  mov al, 0
  out dx, al
  sti
  hlt
  mov al, 0x10
  out 0xf4, al
bad:
  mov al, 0x20
  out 0xf4, al
line:
  mov al, 0x20
  out 0xa0, al
  out 0x20, al
  iret
  align 8
gdt:
  dq 0, 0x00009b000000ffff, 0x000093000000ffff
gdtr:
  dw gdtr - gdt - 1
  dd gdt
idtr:
  dw 0x3ff
  dd 0
  align 4
filler:
  times 0x800 dd 0x12345678
`;

test('a kernel goes back to real mode and is interrupted there', {
  skip: existsSync(nasm) ? false : 'nasm is missing',
}, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-real-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const [source, kernel] = ['kernel.asm', 'kernel'].map((name) => join(folder, name));
  writeFileSync(source, SOURCE);
  const assembled = spawnSync(nasm, ['-f', 'bin', '-o', kernel, source], { encoding: 'utf8' });
  assert.equal(assembled.status, 0, assembled.stderr);
  const vm = startVm(context, {
    kernel: false,
    memory: 16,
    more: ['-kernel', kernel, '-device', 'isa-debug-exit,iobase=0xf4,iosize=4', '-device', 'pc-testdev'],
  });
  assert.equal(await vm.exit(90), 33, vm.complaints);
});
