/** Every case of every `.asm` file here, on the baseline tier and on the reference executor. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { BareMachine } from '../../engine/accel/jit/testing.ts';
import { assemble, nasm, parseCases } from './cases.ts';
import { ReferenceMachine } from './machines.ts';
import { runCase } from './run.ts';

const folder = dirname(fileURLToPath(import.meta.url));
const skip = existsSync(nasm) ? false : `nasm is missing (apt-get install nasm): no assembly test was run`;
if (skip !== false) console.log(skip);

const machines =
  skip === false
    ? { baseline: new BareMachine('baseline'), region: new BareMachine('region'), reference: new ReferenceMachine() }
    : undefined;
const only = process.env.ASM_CASE;

for (const file of readdirSync(folder).filter((name) => name.endsWith('.asm')))
  test(file, { skip }, async (t) => {
    const cases = parseCases(readFileSync(join(folder, file), 'utf8'), file);
    assert.equal(new Set(cases.map((one) => one.name)).size, cases.length, 'two cases of one name');
    for (const one of cases)
      if (only === undefined || one.name.includes(only))
        await t.test(one.name, () => {
          const assembled = assemble(one);
          const differences: string[] = [];
          for (const [tier, machine] of Object.entries(machines ?? {}))
            for (const difference of runCase(machine, one, assembled)) differences.push(`${tier}: ${difference}`);
          if (one.state.fails === undefined) assert.deepEqual(differences, [], `${file}:${one.line}`);
          else assert.notDeepEqual(differences, [], `${file}:${one.line} passes now: take its "fails" away`);
        });
  });
