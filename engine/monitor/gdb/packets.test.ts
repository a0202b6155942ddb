import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromLittleHex, littleHex, PACKET_SIZE, PacketReader, packet } from './packets.ts';
import { gdbRegisters, targetXml } from './target.ts';

const bytes = (text: string): Uint8Array => Uint8Array.from(text, (each) => each.charCodeAt(0));

test('packets come whole, in pieces, with escapes and with noise', () => {
  const reader = new PacketReader();
  assert.deepEqual(reader.feed(bytes('+$qC#b4')), [{ kind: 'ack' }, { kind: 'packet', data: 'qC' }]);
  assert.deepEqual(reader.feed(bytes('$q')), []);
  assert.deepEqual(reader.feed(bytes('C#b')), []);
  assert.deepEqual(reader.feed(bytes('4\x03-')), [{ kind: 'packet', data: 'qC' }, { kind: 'interrupt' }, { kind: 'nak' }]);
  assert.deepEqual(reader.feed(bytes('$qC#00')), [{ kind: 'bad' }]);
  const data = 'X1,4:}$#*';
  assert.deepEqual(reader.feed(packet(data)), [{ kind: 'packet', data }]);
  // Longer than was agreed: refused, and what follows is read.
  assert.deepEqual(reader.feed(packet('m'.repeat(PACKET_SIZE + 1))), [{ kind: 'bad' }]);
  assert.deepEqual(reader.feed(bytes('$?#3f')), [{ kind: 'packet', data: '?' }]);
});

test('numbers are in the order of the target', () => {
  assert.equal(littleHex(0x12345678n, 32), '78563412');
  assert.equal(littleHex(1n << 79n, 80), '00000000000000000080');
  assert.equal(fromLittleHex('7856341200000000'), 0x12345678n);
  assert.equal(fromLittleHex('7z'), undefined);
});

test('the description has the registers in the order of the packet', () => {
  for (const long of [true, false]) {
    const names = [...targetXml(long).matchAll(/<reg name="(\w+)"/g)].map((match) => match[1]);
    assert.deepEqual(
      names,
      gdbRegisters(long).map(({ name }) => name),
    );
    assert.equal(names.indexOf(long ? 'rip' : 'eip'), long ? 16 : 8);
  }
});
