import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formsOf, parseRows } from '../decode/rows.ts';
import { CRYPTO, SSE } from '../decode/tables-sse.ts';
import { sse } from './sse.ts';
import { SseMachine } from './sse-testing.ts';

const rows = parseRows(SSE);
rows.push(...parseRows(CRYPTO, rows.length));

test('every form of every row makes valid IR and valid code', () => {
  const machine = new SseMachine(rows, sse, {});
  const failures: string[] = [];
  let count = 0;
  for (const row of rows)
    for (const form of formsOf(row)) {
      try {
        machine.check(form);
        count++;
      } catch (error) {
        failures.push(`${row.text} ${form.memory ? form.address : 'register'}: ${(error as Error).message}`);
      }
    }
  assert.deepEqual(failures, []);
  assert.ok(count > 800, `${count} forms`);
});
