import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emitForm, forms } from '../accel/jit/handlers.ts';
import { type Form, formBits } from '../x86/decode/rows.ts';
import { emitPrelude, PRELUDE_KINDS } from '../x86/emit/prelude.ts';
import { type Body, Builder } from './builder.ts';
import { expandFlags } from './flags.ts';
import { printBody } from './print.ts';
import { check, ends, verify } from './verify.ts';

const hasFlags = (body: Body): boolean =>
  body.some(
    (s) =>
      s.op.startsWith('flags') ||
      (s.op === 'if' && (hasFlags(s.then) || hasFlags(s.else))) ||
      (s.op === 'loop' && hasFlags(s.body)),
  );

test('every form of every row, before and after flags are expanded', () => {
  const failures: string[] = [];
  for (const form of forms) {
    const builder = new Builder();
    emitForm(builder, form);
    if (!ends(builder.body)) builder.next();
    const what = `${form.row.text} size ${form.size} ${form.memory ? form.address : 'register'}${form.lock ? ' lock' : ''}`;
    const before = check(builder.body, { complete: true });
    if (before.length > 0) failures.push(`${what}: ${before[0]}`);
    const expanded = expandFlags(builder.body);
    const after = check(expanded, { complete: true });
    if (before.length === 0 && after.length > 0) failures.push(`${what}, expanded: ${after[0]}\n${printBody(expanded)}`);
    if (hasFlags(expanded)) failures.push(`${what}: flags are left`);
  }
  assert.deepEqual(failures.slice(0, 12), [], `${failures.length} forms`);
});

test('the same with every field known', () => {
  // What a region or the reference gives: constants, so that other folds of the builder are taken.
  const failures: string[] = [];
  for (const form of forms)
    for (const value of [0n, 0x80n, -1n]) {
      const known = (field: string): bigint => (['a', 'b', 'c', 'base', 'index', 'segment'].includes(field) ? 0x80n : value);
      const builder = new Builder(known);
      emitForm(builder, form);
      if (!ends(builder.body)) builder.next();
      const problems = check(expandFlags(builder.body), { complete: true });
      if (problems.length > 0) failures.push(`${form.row.text}: ${problems[0]}`);
    }
  assert.deepEqual(failures.slice(0, 12), [], `${failures.length} forms`);
});

/** The number that the decoder gives a form: dimensions that its row lacks stand at 32. */
function canonical(form: Form): number {
  const { row } = form;
  const has = (attribute: string): boolean => row.attributes.has(attribute);
  return formBits({
    ...form,
    size: row.sized || has('d64') || has('f64') ? form.size : 32,
    addressSize: has('string') || has('bits') ? form.addressSize : 32,
    stack: has('stack') ? form.stack : 32,
  });
}

test('what a form leaves out makes no difference to its code', () => {
  // The number of a form keeps only the dimensions that its row says it has: emitters must not look at the others.
  const text = (form: Form): string => {
    const builder = new Builder();
    emitForm(builder, form);
    return printBody(builder.body);
  };
  const failures = new Set<string>();
  for (const form of forms) {
    const own = text(form);
    const variants: [string, Form][] = [];
    for (const width of [16, 32, 64] as const)
      variants.push(
        ['size', { ...form, size: width }],
        ['address size', { ...form, addressSize: width }],
        ['stack', { ...form, stack: width }],
      );
    for (const [what, variant] of variants) {
      // Where the row has the dimension, it is another form with code of its own.
      if (canonical(variant) !== formBits(form)) continue;
      let differs: boolean;
      try {
        differs = text(variant) !== own;
      } catch {
        differs = true;
      }
      if (differs) failures.add(`${form.row.text}: ${what}`);
    }
  }
  assert.deepEqual([...failures], []);
});

test('the EA records', () => {
  for (const kind of PRELUDE_KINDS) {
    const builder = new Builder();
    emitPrelude(builder, kind);
    builder.next();
    verify(builder.body, { complete: true });
  }
});

const problemsOf = (build: (b: Builder) => void): string => {
  const b = new Builder();
  build(b);
  return check(b.body).join('\n');
};

test('what breaks a rule is found', () => {
  assert.match(
    problemsOf((b) => {
      b.next();
      b.next();
    }),
    /after the end/,
  );
  assert.match(
    problemsOf((b) =>
      b.if(
        b.field('a'),
        () => b.next(),
        () => b.raise(6),
      ),
    ).concat('-'),
    /^-$/,
  );
  assert.match(
    problemsOf((b) => {
      b.if(
        b.field('a'),
        () => b.next(),
        () => b.raise(6),
      );
      b.next();
    }),
    /after the end/,
  );
  assert.match(
    problemsOf((b) => {
      b.get(b.variable('i32'));
    }),
    /no value/,
  );
  assert.match(
    problemsOf((b) => {
      const v = b.variable('i32');
      b.if(b.field('a'), () => b.set(v, b.i32(1)));
      b.get(v);
    }),
    /no value/,
  );
  assert.equal(
    problemsOf((b) => {
      const v = b.variable('i32');
      b.if(
        b.field('a'),
        () => b.set(v, b.i32(1)),
        () => b.raise(6),
      );
      b.get(v);
    }),
    '',
  );
  assert.match(
    problemsOf((b) => {
      let inner = b.i32(0);
      b.if(b.field('a'), () => {
        inner = b.field('b');
      });
      b.setState(0, 32, inner);
    }),
    /out of scope/,
  );
  assert.match(
    problemsOf((b) => b.setState(0, 64, b.i32(1))),
    /no access of 64 bits with i32/,
  );
  assert.match(
    problemsOf((b) => b.setState(0x1000, 32, b.i32(1))),
    /outside the state/,
  );
  assert.match(
    problemsOf((b) => {
      b.load(32, b.i32(5));
    }),
    /address is i32/,
  );
  assert.match(
    problemsOf((b) => b.flags('add', 64, b.i64(1), b.i64(2), b.i32(3))),
    /operand 2 is i32, not i64/,
  );
  assert.match(
    problemsOf((b) => b.flags('sub', 32, b.i32(1), b.i32(2))),
    /has 2 operands, not 3/,
  );
  assert.match(
    problemsOf((b) => {
      b.rmwBegin(32, b.i64(0), false);
    }),
    /not ended/,
  );
  assert.match(
    problemsOf((b) => {
      const token = b.rmwBegin(32, b.i64(0), false);
      b.rmwAtomic('add', 32, token, b.i32(1));
      b.rmwEnd(32, token);
    }),
    /does not lock/,
  );
  assert.match(
    problemsOf((b) => {
      const token = b.rmwBegin(32, b.i64(0), false);
      b.rmwStore(16, token, b.i32(1));
      b.rmwEnd(32, token);
    }),
    /16 bits where rmw.begin has 32/,
  );
  assert.match(
    problemsOf((b) => {
      b.op('i32x4.extract_lane', [b.v128(1n, 2n)], [4]);
    }),
    /lane 4/,
  );
  assert.match(
    problemsOf((b) => b.raise(32)),
    /vector 32/,
  );
  const other = new Builder();
  const foreign = other.field('a');
  assert.match(
    problemsOf((b) => b.setState(0, 32, foreign)),
    /before its definition/,
  );
  assert.throws(() => verify(other.body.concat(other.body)), /defined twice/);
});

test('text of a body', () => {
  const b = new Builder();
  const x = b.getSlot(b.field('a'), 32);
  b.if(
    b.eqz(x),
    () => b.raise(0),
    () => b.setState(8, 64, b.sext(x)),
  );
  b.loop(() => b.test(4));
  b.next();
  assert.equal(
    printBody(b.body),
    [
      '%0: i32 = field a',
      '%1: i32 = get.32 [%0]',
      '%2: i32 = i32.eqz %1',
      'if %2 {',
      '  raise 0, 0',
      '} else {',
      '  %3: i64 = i64.extend_i32_s %1',
      '  %4: i32 = 0',
      '  put.64 [rcx], %3',
      '}',
      'loop {',
      '  %5: i32 = flags.test Z',
      '} while %5',
      'next',
    ].join('\n'),
  );
});
