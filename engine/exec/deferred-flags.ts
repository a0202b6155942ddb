/**
 * Flags that are put off past the end of a block. Where nothing in a region reads the flags that a block ends with
 * before they are made anew, only what they come from is kept, in locals: which operation (its *form*) and its
 * operands. The flags themselves are made where the region is left, of which there is one place.
 */
import { type Body, Builder, type FlagKind, type Size, type Value } from '../ir/builder.ts';
import { expandFlags } from '../ir/flags.ts';
import type { Type } from '../ir/ops.ts';
import type { Node } from './control-flow.ts';

/** An operation that sets the flags, with operands that last. `before`: what the flags it keeps come from; undefined: they are in their place. */
export interface PendingFlags {
  readonly kind: FlagKind;
  readonly bits: Size;
  readonly args: readonly Value[];
  readonly before: PendingFlags | undefined;
}

export interface FlagForm {
  /** From 1; 0 is that the flags are in their place. */
  readonly number: number;
  readonly kind: FlagKind;
  readonly bits: Size;
  readonly types: readonly Type[];
  /** The result is not among the operands: it is their sum or difference. */
  readonly computed: boolean;
}

export class FlagForms {
  readonly all: FlagForm[] = [];

  /** The form of an operation and the operands to keep; undefined where it must be done at once. */
  of({ kind, bits, args }: PendingFlags): { form: FlagForm; kept: readonly Value[] } | undefined {
    if (kind === 'compare') return undefined;
    const computed = isResult(kind, args);
    const kept = computed ? args.slice(0, 2) : args;
    const types = kept.map(({ type }) => type);
    let form = this.all.find(
      (each) => each.kind === kind && each.bits === bits && each.computed === computed && each.types.join() === types.join(),
    );
    if (form === undefined) {
      form = { number: this.all.length + 1, kind, bits, types, computed };
      this.all.push(form);
    }
    return { form, kept };
  }
}

function isResult(kind: FlagKind, [x, y, result]: readonly Value[]): boolean {
  if ((kind !== 'add' && kind !== 'sub') || result.by.op !== 'pure') return false;
  const { pure, args } = result.by;
  return pure.name === `${x.type}.${kind}` && args[0] === x && args[1] === y;
}

/** Code that sets the flags by a form from operands that `operand` gives as values of its types. */
export function flagsOf(form: FlagForm, operand: (b: Builder, n: number, type: Type) => Value): Body {
  const b = new Builder();
  const args = form.types.map((type, n) => operand(b, n, type));
  if (form.computed) args.push(form.kind === 'add' ? b.add(args[0], args[1]) : b.sub(args[0], args[1]));
  b.flags(form.kind, form.bits, ...args);
  return expandFlags(b.body);
}

/** What a body does with the flags that were there before it. */
function effectOf(body: Body, isStateless: (name: string) => boolean): 'reads' | 'writes' | 'none' {
  for (const statement of body) {
    switch (statement.op) {
      case 'flags':
        return statement.kind === 'inc' || statement.kind === 'dec' ? 'reads' : 'writes';
      case 'flags.put':
        return 'writes';
      case 'flags.test':
      case 'flags.all':
      case 'flags.cf':
      case 'flags.cfof':
        return 'reads';
      case 'call':
        if (!isStateless(statement.name) || statement.leaves) return 'reads';
        break;
      case 'if':
        // Flags that only one side makes are kept from before on the other.
        if (effectOf(statement.then, isStateless) !== 'none' || effectOf(statement.else, isStateless) !== 'none') return 'reads';
        break;
      case 'loop':
        if (effectOf(statement.body, isStateless) !== 'none') return 'reads';
        break;
      default:
    }
  }
  return 'none';
}

/** The blocks that, or whose successors, read the flags that were there before; leaving the region is no reading. */
export function wantFlags(nodes: readonly Node[], isStateless: (name: string) => boolean): ReadonlySet<Node> {
  const want = new Set<Node>();
  const through: Node[] = [];
  for (const node of nodes) {
    let effect: ReturnType<typeof effectOf> = 'none';
    for (const { body } of node.block?.instructions ?? []) {
      effect = effectOf(body, isStateless);
      if (effect !== 'none') break;
    }
    if (effect === 'reads') want.add(node);
    else if (effect === 'none') through.push(node);
  }
  for (let changed = true; changed; ) {
    changed = false;
    for (const node of through)
      if (!want.has(node) && node.successors.some((each) => want.has(each))) {
        want.add(node);
        changed = true;
      }
  }
  return want;
}
