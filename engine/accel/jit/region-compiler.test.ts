/** Regions that are made elsewhere while the guest goes on, and shared by vCPUs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HOT_ENTRIES } from './handlers.ts';
import { RegionCompiler } from './region-compiler.ts';
import { Marks } from './region-job.ts';
import { BareMachine, bareBaseline } from './testing.ts';

/** MOV ECX, rounds; 1: ADD RAX, step; DEC ECX; JNZ 1b; HLT */
const loop = (rounds: number, step: number): Uint8Array =>
  Uint8Array.of(0xb9, rounds & 0xff, rounds >> 8, 0, 0, 0x48, 0x83, 0xc0, step, 0xff, 0xc9, 0x75, 0xf8, 0xf4);

function machine(compiler?: RegionCompiler): BareMachine {
  const bare = new BareMachine('both', 20, compiler);
  bare.long();
  return bare;
}

test('what was made for one vCPU serves another, unless its code is different', () => {
  const compiler = new RegionCompiler(bareBaseline(20), new Marks());
  const compile = compiler.compile.bind(compiler);
  const made: boolean[] = [];
  compiler.compile = (job) => {
    const reply = compile(job);
    assert.notEqual(reply.region, undefined);
    made.push(reply.microseconds > 0);
    return reply;
  };
  for (const step of [3, 3, 5]) {
    const vcpu = machine(compiler);
    vcpu.execute(loop(1000, step));
    assert.equal(vcpu.register(0), BigInt(step * 1000));
  }
  assert.deepEqual(made, [true, false, true]);
});

test('the guest goes on while a region is made, and asks once', () => {
  const vcpu = machine();
  vcpu.compiles = false;
  vcpu.execute(loop(1000, 3));
  assert.equal(vcpu.requests.length, 1);
  assert.equal(vcpu.register(0), 3000n);
});

test('a region that comes late enters the code it was made of, and no other', () => {
  const compiler = new RegionCompiler(bareBaseline(20), new Marks());
  for (const [step, regions] of [
    [3, 1],
    [7, 0],
  ]) {
    const vcpu = machine();
    vcpu.compiles = false;
    vcpu.execute(loop(1000, 3));
    vcpu.replies.push(compiler.compile(vcpu.requests[0]));
    vcpu.setRegister(0, 0n);
    // The guest's code is another by now, in the second case.
    if (step !== 3) vcpu.vcpu.invalidate(vcpu.requests[0].page);
    vcpu.ram.write(0x100000, loop(1000, step));
    vcpu.compiles = true;
    vcpu.execute(loop(1000, step));
    assert.equal(vcpu.register(0), BigInt(step * 1000));
    assert.equal(vcpu.regions, regions + vcpu.requests.length - 1);
  }
});

test('a machine of more than 4 GiB gets regions too', () => {
  const vcpu = machine();
  vcpu.compiles = false;
  vcpu.execute(loop(1000, 3));
  const { region, error } = new RegionCompiler({ ...bareBaseline(20), memory64: true }, new Marks()).compile(vcpu.requests[0]);
  assert.equal(error, undefined);
  assert.notEqual(region, undefined);
});

test('a far region that is kept is asked for by its entry alone, and entered where all of its pages are the same', () => {
  const marks = new Marks();
  const compiler = new RegionCompiler({ ...bareBaseline(HOT_ENTRIES), farEntries: undefined }, marks);
  /** What a machine asks for: kept ones by their entry alone, others made or not; far ones say so. */
  const run = (step: number): string[] => {
    const bare = new BareMachine('both', HOT_ENTRIES, compiler, marks);
    const asked: string[] = [];
    bare.compile = (job) => {
      const reply = compiler.compile(job);
      assert.equal(reply.error, undefined);
      const runs = job.kept ? 'kept' : reply.microseconds > 0 ? 'made' : 'served';
      asked.push(`${job.far ? 'far' : 'near'} ${runs}${reply.region === undefined ? ', nothing' : ''}`);
      return reply;
    };
    bare.long();
    bare.setRegister(4, 0x200000n);
    // ADD RAX, step; RET, in the next page.
    bare.ram.write(0x101000, Uint8Array.of(0x48, 0x83, 0xc0, step, 0xc3));
    // MOV ECX, 100000; 1: CALL 101000; DEC ECX; JNZ 1b; HLT
    bare.execute(Uint8Array.of(0xb9, 0xa0, 0x86, 1, 0, 0xe8, 0xf6, 0x0f, 0, 0, 0xff, 0xc9, 0x75, 0xf7, 0xf4));
    assert.equal(bare.register(0), BigInt(step * 100_000));
    return asked;
  };
  const first = run(3);
  assert.ok(first.includes('far made'), first.join());
  const again = run(3);
  assert.ok(again.includes('far kept'), again.join());
  assert.ok(!again.includes('far made'), again.join());
  // The loop is the same, what it calls is not: the region that is offered is not taken.
  const other = run(5);
  assert.ok(other.includes('far kept'), other.join());
  assert.ok(run(5).includes('far kept'));
});
