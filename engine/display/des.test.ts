import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FailureLog, sameBytes, vncResponse } from './auth.ts';
import { desEncryptBlock } from './des.ts';

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'hex'));

// NBS Special Publication 500-20: the substitution table known answer test, which passes through every entry of every S-box.
// biome-ignore format: key, plain text, cipher text
const VECTORS = [
  ['7CA110454A1A6E57', '01A1D6D039776742', '690F5B0D9A26939B'], ['0131D9619DC1376E', '5CD54CA83DEF57DA', '7A389D10354BD271'],
  ['07A1133E4A0B2686', '0248D43806F67172', '868EBB51CAB4599A'], ['3849674C2602319E', '51454B582DDF440A', '7178876E01F19B2A'],
  ['04B915BA43FEB5B6', '42FD443059577FA2', 'AF37FB421F8C4095'], ['0113B970FD34F2CE', '059B5E0851CF143A', '86A560F10EC6D85B'],
  ['0170F175468FB5E6', '0756D8E0774761D2', '0CD3DA020021DC09'], ['43297FAD38E373FE', '762514B829BF486A', 'EA676B2CB7DB2B7A'],
  ['07A7137045DA2A16', '3BDD119049372802', 'DFD64A815CAF1A0F'], ['04689104C2FD3B2F', '26955F6835AF609A', '5C513C9C4886C088'],
  ['37D06BB516CB7546', '164D5E404F275232', '0A2AEEAE3FF4AB77'], ['1F08260D1AC2465E', '6B056E18759F5CCA', 'EF1BF03E5DFA575A'],
  ['584023641ABA6176', '004BD6EF09176062', '88BF0DB6D70DEE56'], ['025816164629B007', '480D39006EE762F2', 'A1F9915541020B56'],
  ['49793EBC79B3258F', '437540C8698F3CFA', '6FBF1CAFCFFD0556'], ['4FB05E1515AB73A7', '072D43A077075292', '2F22E49BAB7CA1AC'],
  ['49E95D6D4CA229BF', '02FE55778117F12A', '5A6B612CC26CCE4A'], ['018310DC409B26D6', '1D9D5C5018F728C2', '5F4C038ED12B2E41'],
  ['1C587F1C13924FEF', '305532286D6F295A', '63FAC0D034D9F793'],
  ['133457799BBCDFF1', '0123456789ABCDEF', '85E813540F0AB405'], ['0101010101010101', '8000000000000000', '95F8A5E5DD31D900'],
];

test('DES gives the known answers', () => {
  for (const [key, plain, cipher] of VECTORS) {
    assert.equal(
      Buffer.from(desEncryptBlock(hex(key), hex(plain)))
        .toString('hex')
        .toUpperCase(),
      cipher,
      key,
    );
  }
});

test('a VNC response mirrors the bits of the password and counts eight bytes of it', () => {
  const challenge = hex('000102030405060708090a0b0c0d0e0f');
  // openssl enc -des-ecb -nopad with the mirrored bytes of "password" as its key: 0e86ceceeef64e26
  const expected = 'b866924125c8eebb9debc1db61c538e2';
  assert.equal(Buffer.from(vncResponse('password', challenge)).toString('hex'), expected);
  assert.ok(sameBytes(vncResponse('password-and-more', challenge), hex(expected)));
  assert.ok(!sameBytes(vncResponse('passwore', challenge), hex(expected)));
  assert.ok(!sameBytes(hex('00'), hex('0000')));
});

test('wrong passwords shut a peer out for longer and longer, and only that one', () => {
  let now = 0;
  const log = new FailureLog(() => now);
  log.failed('a');
  log.failed('a');
  assert.equal(log.delay('a'), 0);
  log.failed('a');
  assert.equal(log.delay('a'), 2000);
  assert.equal(log.delay('b'), 0);
  now += 2000;
  assert.equal(log.delay('a'), 0);
  for (let count = 0; count < 30; count++) log.failed('a');
  assert.equal(log.delay('a'), 60_000);
  now += 700_000;
  log.failed('a');
  assert.equal(log.delay('a'), 0, 'old failures are forgotten');
  for (let count = 0; count < 3; count++) log.failed('b');
  for (let peer = 0; peer < 1000; peer++) log.failed(`peer ${peer}`);
  assert.equal(log.delay('b'), 0, 'the log is bounded: the oldest goes first');
  for (let count = 0; count < 3; count++) log.failed('c');
  log.succeeded('c');
  assert.equal(log.delay('c'), 0);
});
