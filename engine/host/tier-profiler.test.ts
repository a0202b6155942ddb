import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BareMachine } from '../accel/jit/testing.ts';
import { TierProfiler } from './tier-profiler.ts';

// MOV ECX, 1000000h; 1: MOV RAX, [RSI]; ADD RAX, [RSI + 8]; DEC ECX; JNZ 1b; HLT
const LOOP = Uint8Array.from(Buffer.from('b900000001 488b06 48034608 ffc9 75f5 f4'.replaceAll(' ', ''), 'hex'));

test('samples tell in which tier a loop runs', () => {
  for (const tier of ['baseline', 'both'] as const) {
    const machine = new BareMachine(tier);
    machine.long();
    machine.setRegister(6, 0x400000n);
    const profiler = new TierProfiler();
    const counts = { baseline: 0, regions: 0, other: 0 };
    assert.equal(profiler.turn(), undefined, 'the first has none before it');
    for (let n = 0; n < 200 && counts.baseline + counts.regions < 50; n++) {
      machine.execute(LOOP);
      const samples = profiler.turn();
      assert.ok(samples !== undefined);
      counts.baseline += samples.baseline;
      counts.regions += samples.regions;
      counts.other += samples.other;
    }
    profiler.stop();
    const [here, there] = tier === 'both' ? [counts.regions, counts.baseline] : [counts.baseline, counts.regions];
    assert.ok(here >= 25 && here > there, `${tier}: ${JSON.stringify(counts)}`);
    assert.equal(profiler.turn(), undefined, 'it may begin anew');
    profiler.stop();
    profiler.stop();
  }
});
