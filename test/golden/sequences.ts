/**
 * Short sequences of guest code whose translation is kept in files (see golden.test.ts): each shows one thing that the
 * passes or the code generator do. Bytes are grouped by instruction; the files have the text. All end with HLT.
 */

export interface Sequence {
  /** Name of its file. */
  readonly name: string;
  /** What it is there to show. */
  readonly shows: string;
  readonly bits: 32 | 64;
  readonly code: string;
  /** The region is a far one: accesses share windows outside of loops too, and returns go to the calls in it. */
  readonly far?: true;
  /** Code at the start of the next page. */
  readonly beyond?: string;
  /** What the quadwords at RBX hold: an offset in the code. */
  readonly table?: number;
}

const long = (name: string, shows: string, code: string, more: Partial<Sequence> = {}): Sequence => ({
  name,
  shows,
  bits: 64,
  code,
  ...more,
});
const legacy = (name: string, shows: string, code: string): Sequence => ({ name, shows, bits: 32, code });

export const sequences: readonly Sequence[] = [
  long(
    'loads-of-neighbours',
    'loads of fields of one object share a check of their page',
    '488b4308 488b4b10 8b531c 0fb67303 f4',
    { far: true },
  ),
  long(
    'stores-of-neighbours',
    'stores to fields of one object, and a load between them',
    '488903 48894b08 8b5304 c7431007000000 f4',
    { far: true },
  ),
  long('load-through-load', 'the second address comes from the first load: no window is shared', '488b03 488b4c1808 f4', {
    far: true,
  }),
  long('rip-relative', 'an address relative to RIP, load and store', '488b042500100000 4889042508100000 f4'),
  long('index-scale', 'base, index, scale and displacement', '8b448b40 488d54cbf8 f4'),
  long(
    'push-pop',
    "pushes and pops of a function's start and end share a window",
    '55 4889e5 53 4883ec10 4889442408 4883c410 5b 5d f4',
    { far: true },
  ),
  long('call-return', 'a call in its page, and the return from it', 'e803000000 01d8 f4 8d4101 c3 f4', { far: true }),
  long('leave-ret-n', 'LEAVE, and RET that drops arguments', '4889e5 50 c9 51 e801000000 f4 c20800 f4'),
  long('indirect-jump', 'a jump through a table in memory', '488d1503000000 ff24cb f4 f4', { table: 10 }),
  long('flags-dead', 'flags that nobody wants until the last', '01d8 29d1 31fe 39c8 f4'),
  long('flags-compare-jump', 'comparisons and jumps on them', '39d8 7c0c 4885c9 7407 83ea05 7602 ffc6 90 f4'),
  long('flags-kept-inc', 'INC and DEC keep the carry of what was before them', '01d8 ffc1 7205 ffca 7501 90 90 f4'),
  long('flags-parity-adjust', 'the rarer flags: parity, and all of them at once', '00d8 7a02 9c 5a 90 f4'),
  long('flags-lahf-sahf', 'flags through AH', '39d8 9f 9e 0f92c1 f4'),
  long('adc-chain', 'a sum of several words', '4801d8 4811d1 4811fe 4983d000 f4'),
  long('sbb-chain', 'a difference of several words, and the mask that SBB makes of the carry', '4829d8 4819d1 19f6 f4'),
  long('neg-not', 'NEG, NOT and the carry that NEG leaves', '48f7d8 4883d900 48f7d2 f4'),
  long('shift-cl', 'shifts by CL: the flags may stay as they were', '48d3e0 d3ea d3fb 7401 90 90 f4'),
  long('shift-constant', 'shifts by constants, and the carry', 'c1e003 48c1eb07 c1fa1f 400f92c6 f4'),
  long('rotates', 'rotates, through the carry too', 'c1c008 48d3cb d1d2 48d1de f4'),
  long('shld-shrd', 'shifts of two registers', '480fa4d80c 0fadca f4'),
  long('mul-64', 'products of 128 bits', '48f7e3 48f7e9 f4'),
  long('imul-truncated', 'products that stay in one register', '480fafc3 6bca64 486b3703 f4'),
  long('div-32', 'a quotient, and what it raises', 'b907000000 31d2 f7f1 f4'),
  long('div-64', 'a quotient of 128 bits', 'b907000000 4899 48f7f9 f4'),
  long('narrow-registers', 'bytes and words of registers, high bytes too', '88d8 88cc 00c6 0fbecc 6689d6 f4'),
  long('widening', 'extensions by zero and by sign', '0fb6c3 480fbfca 4863d6 4898 98 f4'),
  long('cmov-setcc', 'values chosen by conditions', '4839d8 480f4cc3 0f9fc1 480f4616 f4'),
  long('bt-memory', 'bit tests: of a register, and of a bit string in memory', '480fbae007 0f92c1 480fa316 0f92c2 480fba2f03 f4'),
  long('bit-scan', 'scans for bits, and counts', '480fbcc3 0fbdca f3480fb8f7 f34d0fbcc1 f3450fbdd3 f4'),
  long('bswap-movbe', 'bytes in the other order', '480fc8 0fc9 0f38f016 f4'),
  long('read-modify-write', 'arithmetic on memory', '480103 ff4308 806310f0 48837318ff f4'),
  long('lock-xadd', 'an atomic sum that gives what was before', 'f0480fc103 4883c001 f4'),
  long('lock-cmpxchg', 'an atomic exchange in a loop, as locks have it', '8b03 8d4801 f00fb10b 75f5 f4'),
  long('xchg-memory', 'an exchange with memory, which is atomic by itself', '488703 f0ff4308 f4'),
  long('rep-movs', 'a block copy', 'b940000000 f3a4 f4'),
  long('rep-stos', 'a block fill, by quadwords', 'b908000000 31c0 f348ab f4'),
  long('movs-lods-single', 'string instructions without a prefix', '48a5 ad aa f4'),
  long('scas-cmps', 'searches that end at what they look for', 'b910000000 f2ae b910000000 f3a6 f4'),
  long(
    'loop-memory',
    'a loop over an array: it remembers the page',
    'b910000000 488b06 4801c2 488917 4883c608 4883c708 ffc9 75eb f4',
  ),
  long('loop-nested', 'a loop in a loop', 'b903000000 ba04000000 0306 ffca 75fa ffc9 75f1 f4'),
  long('store-into-code', 'a store that may hit code that was translated, and code after it', 'c60390 b801000000 894301 90 f4'),
  long(
    'sse-scalar-double',
    'sums and products of doubles, from memory too',
    'f20f1003 f20f584308 f20f59c1 f20f5cd0 f20f115310 f4',
  ),
  long('sse-scalar-chain', 'what is known of one operation serves the next', 'f20f58c1 f20f58c2 f20f59c0 f4'),
  long('sse-divide-root', 'quotient and root', 'f20f5ec1 f20f51d0 f4'),
  long('sse-convert', 'between integers, singles and doubles', 'f20f2ac0 f2480f2cc8 f20f5ac8 f30f5ad1 f4'),
  long('sse-compare-jump', 'a comparison of doubles and what hangs on it', '660f2ec1 7a06 7704 f20f58c1 90 f4'),
  long('sse-packed-float', 'four singles and two doubles at once', '0f58c1 660f59d3 0f2903 f4'),
  long('vector-logic', 'logic of whole vectors', 'f30f6f03 660fefc9 660fdbc2 660fdfc8 660febc3 f30f7f4310 f4'),
  long(
    'vector-compare-mask',
    'how strings are searched: comparison of bytes, mask, scan',
    'f30f6f03 660f74c1 660fd7c0 85c0 7403 0fbcc0 90 f4',
  ),
  long('vector-integer', 'sums, products and shuffles of lanes', '660ffec1 660f3840d3 660f70e01b 660f60e9 660f72d203 f4'),
  long('avx-256', 'vectors of 256 bits, and the upper halves', 'c5fe6f03 c5fdefca c5fe7f4b20 c5f877 f4'),
  long('sti-check', 'interrupts are looked at one instruction after STI', 'fa b801000000 fb 90 f4'),
  long('far-call', 'a call into another page, as a far region has it', 'e8fb0f0000 41ffcc 90 90 f4', {
    far: true,
    beyond: '8d4101 c3',
  }),
  legacy('flat-32', '32-bit code in flat segments', '8b4308 03430c 50 59 894e04 f4'),
  legacy('segment-32', "32-bit code with a segment's base and limit", '648b4304 64894308 268b0f f4'),
  legacy('bcd-32', 'decimal adjustment, which wants the adjust flag', '00d8 27 d40a f4'),
];
