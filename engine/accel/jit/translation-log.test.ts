/** What the log of translation holds: runs as they are decoded and regions as they are made, of a bare machine. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BareMachine, bareBaseline } from './testing.ts';
import { type AddressRange, type TranslationItem, TranslationLog } from './translation-log.ts';

const CODE = 0x100000;
// MOV ECX, 3; 1: MOV RAX, [RSI]; ADD RAX, [RSI + 8]; ADD RSI, 16; DEC ECX; JNZ 1b; HLT
const LOOP = Uint8Array.from(Buffer.from('b903000000 488b06 48034608 4883c610 ffc9 75f1 f4'.replaceAll(' ', ''), 'hex'));

/** What is written while the code runs twice, the second time with all of it known. */
function logOf(code: Uint8Array, items: readonly TranslationItem[], ranges?: readonly AddressRange[], at = CODE): string[] {
  const machine = new BareMachine('both', 2);
  machine.long();
  const written: string[] = [];
  machine.vcpu.listener = new TranslationLog({
    system: machine.system,
    regions: bareBaseline(2),
    name: 'cpu 0',
    wants: (item) => items.includes(item),
    write: (text) => written.push(text),
    ranges,
  });
  for (let times = 0; times < 2; times++) {
    machine.setRegister(6, 0x400000n);
    machine.setRegister(4, 0x380000n);
    machine.execute(times === 0 ? code : new Uint8Array(0), at);
  }
  return written;
}

test('instructions: addresses, bytes and text', () => {
  assert.equal(
    logOf(LOOP, ['in_asm'])[0],
    [
      '----------------',
      'IN: cpu 0, 64-bit',
      '0x00100000:  b9 03 00 00 00           mov ecx,0x3',
      '0x00100005:  48 8b 06                 mov rax,qword [rsi]',
      '0x00100008:  48 03 46 08              add rax,qword [rsi+0x8]',
      '0x0010000c:  48 83 c6 10              add rsi,0x10',
      '0x00100010:  ff c9                    dec ecx',
      '0x00100012:  75 f1                    jne 0x100005',
      '0x00100014:  f4                       hlt',
    ].join('\n'),
  );
});

test('an instruction that goes on in the next page, and one that does not exist', () => {
  const [first] = logOf(LOOP, ['in_asm'], undefined, CODE + 0x1000 - 2);
  assert.match(first, /^0x00100ffe: {2}b9 03 00 00 00 +mov ecx,0x3$/m);
  const [bad] = logOf(Uint8Array.of(0x90, 0x0f, 0xff, 0xc0), ['in_asm', 'ir']);
  assert.match(bad, /nop\n/);
});

test('the IR of a run, and nothing that was not asked for', () => {
  const [first] = logOf(LOOP, ['ir']);
  assert.match(first, /dec ecx\n {4}%0: i32 = get.32 \[rcx\]\n {4}%1: i32 = i32.sub %0, 1\n/);
  assert.deepEqual(logOf(LOOP, []), []);
});

test('blocks of a region with the window that two loads share, and its module', () => {
  const regions = logOf(LOOP, ['op_opt', 'wasm']);
  const loop = regions.find((text) => /region 0x00100005,/.test(text)) ?? '';
  assert.match(loop, /^window 0: 0 to 16$/m);
  assert.match(loop, /^block \+0x5 \(entry 0, loop\) -> \+0x5, \+0x14$/m);
  assert.match(loop, /load\.64 %\d+ ; window 0 at 8$/m);
  assert.match(loop, /^\(func \d+ \(local /m);
  assert.match(loop, /^ +loop$/m);
  assert.match(loop, /call \$slow_load /m);
  assert.match(loop, /global\.get \(run \+0x5\) /m);
});

test('only what starts in the ranges', () => {
  const some = logOf(LOOP, ['in_asm', 'wasm'], [{ first: 0x100005n, last: 0x100005n }]);
  assert.ok(some.length >= 2);
  for (const text of some) assert.match(text, /(64-bit\n0x00100005|region 0x00100005)/);
  assert.deepEqual(logOf(LOOP, ['in_asm', 'wasm'], [{ first: 0n, last: 0xfffffn }]), []);
});
