/** A sample of the opcode space against objdump; `run.ts` goes through all of it. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { compare, newTally } from './check.ts';
import { encodings, WIDTHS } from './encodings.ts';
import { disassemble, objdumpVersion } from './objdump.ts';

/** One encoding in so many; a prime, so that every column of the tables comes up. */
const EVERY = 997;
const version = objdumpVersion();
const skip = version === undefined ? 'no comparison with a disassembler: there is no objdump (package binutils)' : false;

for (const width of WIDTHS)
  test(`${width}-bit encodings are read as objdump reads them`, { skip }, () => {
    const list = [...encodings(width)].filter((_, n) => n % EVERY === 0);
    const tally = newTally();
    for (const [n, judged] of disassemble(width, list).entries()) compare(width, list[n], judged, tally);
    assert.deepEqual(tally.differences, []);
    assert.ok(tally.operands > 500, `${tally.operands} operand lists`);
  });

test('a difference is seen', { skip }, () => {
  const tally = newTally();
  const add = [0x48, 0x01, 0xd8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
  compare(64, add, { length: 3, text: 'add    rax,rbx' }, tally);
  assert.deepEqual(tally.differences, []);
  compare(64, add, { length: 4, text: 'add    rax,rbx' }, tally);
  compare(64, add, { length: 3, text: 'add    rbx,rax' }, tally);
  compare(64, add, { length: 3, text: '(bad)' }, tally);
  assert.equal(tally.differences.length, 3);
});
