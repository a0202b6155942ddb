import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Builder, type Value } from '../ir/builder.ts';
import * as S from '../memory/vcpu-state.ts';
import { ControlFlow } from './control-flow.ts';
import { findWindows } from './windows.ts';

const RAX = S.GPR;
const RBX = S.GPR + 24;
const UPPER = S.VECTOR + 8;

/** The places of the accesses that instructions make, in order; undefined: the access is for itself. */
function places(...instructions: readonly ((b: Builder) => void)[]): ({ window: number; at: number } | undefined)[] {
  const block = {
    offset: 0,
    instructions: instructions.map((emit, n) => {
      const b = new Builder();
      emit(b);
      return {
        record: 0,
        offset: n,
        next: n + 1,
        body: b.body,
        target: undefined,
        check: false,
        call: false,
        returns: false,
        position: n + 1,
      };
    }),
    branches: [],
    falls: instructions.length,
    ends: true,
  };
  const found = findWindows(new ControlFlow([block], [0]).root, (name) => name === 'harmless', true);
  const windows = [...new Set([...found.values()].map(({ window }) => window))];
  return block.instructions.flatMap(({ body }) =>
    body.flatMap((statement) => {
      if (statement.op !== 'load' && statement.op !== 'store') return [];
      const place = found.get(statement);
      return [place === undefined ? undefined : { window: windows.indexOf(place.window), at: place.at }];
    }),
  );
}

const at = (b: Builder, register: number, offset: number): Value => b.add(b.state(register, 64), b.i64(offset));
const load = (register: number, offset: number) => (b: Builder) => void b.load(64, at(b, register, offset));

test('fields of one object share a window, also where the register moves by a constant', () => {
  const move = (b: Builder): void => b.setState(RAX, 64, at(b, RAX, -8));
  assert.deepEqual(places(load(RAX, 8), move, load(RAX, 8), load(RBX, 0)), [
    { window: 0, at: 8 },
    { window: 0, at: 0 },
    undefined,
  ]);
});

test('a register that was written with something else, or by a helper, begins anew', () => {
  assert.deepEqual(
    places(load(RAX, 0), (b) => b.setState(RAX, 64, b.load(64, at(b, RBX, 0))), load(RAX, 8)),
    [undefined, undefined, undefined],
  );
  assert.deepEqual(
    places(load(RAX, 0), (b) => b.setState(RAX, 8, b.i32(1)), load(RAX, 8)),
    [undefined, undefined],
  );
  assert.deepEqual(
    places(load(RAX, 0), (b) => void b.call('helper', 'i32'), load(RAX, 8)),
    [undefined, undefined],
  );
  assert.equal(places(load(RAX, 0), (b) => void b.call('harmless', 'i32'), load(RAX, 8))[1]?.at, 8);
});

test('what was written in one case only begins anew', () => {
  const sometimes = (b: Builder): void => b.if(b.state(S.PENDING, 32), () => b.setState(RAX, 64, b.i64(5)));
  assert.deepEqual(places(load(RAX, 0), sometimes, load(RAX, 8)), [undefined, undefined]);
});

test('halves of vectors are no names of addresses: they change with the whole', () => {
  const take = (b: Builder): void => b.setState(RAX, 64, b.state(UPPER, 64));
  const change = (b: Builder): void => b.setState(S.VECTOR, 128, b.state(S.VECTOR + 64, 128));
  assert.deepEqual(places(take, load(RAX, 0), change, take, load(RAX, 8)), [undefined, undefined]);
});

test('what lies too far apart has windows of its own', () => {
  assert.deepEqual(places(load(RAX, 0), load(RAX, 8), load(RAX, 4000), load(RAX, 4008)), [
    { window: 0, at: 0 },
    { window: 0, at: 8 },
    { window: 1, at: 4000 },
    { window: 1, at: 4008 },
  ]);
});
