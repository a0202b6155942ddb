/**
 * The long run over all of the opcode space: `run.ts [--width 16|32|64] [--every N]`. Prints what differs and why the rest is
 * left out.
 */
import { parseArgs } from 'node:util';
import { compare, newTally } from './check.ts';
import { encodings, WIDTHS, type Width } from './encodings.ts';
import { disassemble, objdumpVersion } from './objdump.ts';

const { values } = parseArgs({
  options: { width: { type: 'string' }, every: { type: 'string', default: '1' }, show: { type: 'string', default: '60' } },
});
const BATCH = 100_000;
const every = Number(values.every);
const version = objdumpVersion();
if (version === undefined) console.log('Skipped: there is no objdump (package binutils).');
else {
  const tally = newTally();
  const began = performance.now();
  for (const width of WIDTHS) {
    if (values.width !== undefined && Number(values.width) !== width) continue;
    let batch: number[][] = [];
    let n = 0;
    const flush = (w: Width): void => {
      for (const [k, judged] of disassemble(w, batch).entries()) compare(w, batch[k], judged, tally);
      batch = [];
    };
    for (const bytes of encodings(width)) {
      if (n++ % every !== 0) continue;
      batch.push(bytes);
      if (batch.length === BATCH) flush(width);
    }
    if (batch.length > 0) flush(width);
  }
  const kinds = new Map<string, number>();
  for (const { width, code, what } of tally.differences) {
    const kind = what.replace(/\d+/g, '#');
    const count = (kinds.get(kind) ?? 0) + 1;
    kinds.set(kind, count);
    if (count === 1 && kinds.size <= Number(values.show)) console.log(`${width}-bit ${code}: ${what}`);
  }
  for (const [reason, count] of tally.excluded) console.log(`left out ${count}: ${reason}`);
  console.log(
    `${tally.compared} encodings against ${version}: ${tally.differences.length} differences of ${kinds.size} kinds, ${tally.operands} operand lists, ${tally.invalid} invalid on both sides, ${((performance.now() - began) / 1000).toFixed(0)} s`,
  );
  process.exitCode = tally.differences.length === 0 ? 0 : 1;
}
