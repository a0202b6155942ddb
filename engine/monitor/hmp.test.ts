import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { MuxChardev } from '../host/chardev-mux.ts';
import { HumanMonitor } from './hmp.ts';
import { formatRegisters, registerByName } from './hmp-registers.ts';
import { parseKeyList } from './keys.ts';
import { attachHumanMonitor } from './monitor-console.ts';
import { FakeChardev, FakeMachine, longModeRegisters, resetRegisters, settle } from './testing.ts';

let machine: FakeMachine;
let monitor: HumanMonitor;
let files: Map<string, string>;

beforeEach(() => {
  machine = new FakeMachine();
  files = new Map();
  monitor = new HumanMonitor({
    machine,
    chardevs: new Map(),
    version: '0.1.0',
    disassemble: (bytes, ip, mode) => ({ text: `op${mode} ${bytes[0]} @${ip}`, length: 2 }),
    writeFile: async (path, parts) => {
      files.set(path, [...parts].map((part) => new TextDecoder().decode(part)).join(''));
    },
  });
});

const run = (line: string): Promise<string> => monitor.execute(line, { cpu: 0 });

describe('info registers', () => {
  // The dump that QEMU 7.2 prints for a CPU after reset.
  const afterReset = `CPU#0
EAX=00000000 EBX=00000000 ECX=00000000 EDX=00060fb1
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00000000
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 00000000 0000ffff 00009300
CS =f000 ffff0000 0000ffff 00009b00
SS =0000 00000000 0000ffff 00009300
DS =0000 00000000 0000ffff 00009300
FS =0000 00000000 0000ffff 00009300
GS =0000 00000000 0000ffff 00009300
LDT=0000 00000000 0000ffff 00008200
TR =0000 00000000 0000ffff 00008b00
GDT=     00000000 0000ffff
IDT=     00000000 0000ffff
CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000 
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000000
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80
FPR0=0000000000000000 0000 FPR1=0000000000000000 0000
FPR2=0000000000000000 0000 FPR3=0000000000000000 0000
FPR4=0000000000000000 0000 FPR5=0000000000000000 0000
FPR6=0000000000000000 0000 FPR7=0000000000000000 0000
XMM00=0000000000000000 0000000000000000 XMM01=0000000000000000 0000000000000000
XMM02=0000000000000000 0000000000000000 XMM03=0000000000000000 0000000000000000
XMM04=0000000000000000 0000000000000000 XMM05=0000000000000000 0000000000000000
XMM06=0000000000000000 0000000000000000 XMM07=0000000000000000 0000000000000000
`;

  it('has the layout of QEMU in real mode', () => assert.equal(formatRegisters(resetRegisters()), afterReset));

  it('has the layout of QEMU in 64-bit mode', () => {
    const lines = formatRegisters(longModeRegisters(0x1000n)).split('\n');
    assert.equal(lines[1], 'RAX=0000000000000000 RBX=3333333333333333 RCX=1111111111111111 RDX=2222222222222222');
    assert.equal(lines[2], 'RSI=6666666666666666 RDI=7777777777777777 RBP=5555555555555555 RSP=4444444444444444');
    assert.ok(lines[3].startsWith('R8 =8888888888888888 R9 =9999999999999999 R10='));
    assert.equal(lines[5], 'RIP=ffffffff81000000 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0');
    assert.ok(lines.includes('CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]'));
    assert.ok(lines.includes('SS =0018 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]'));
    assert.ok(lines.includes('DS =0000 0000000000000000 00000000 00000000'));
    assert.ok(lines.includes('TR =0040 fffffe0000003000 00004087 00008b00 DPL=0 TSS64-busy'));
    assert.equal(lines.filter((line) => line.startsWith('XMM')).length, 8);
  });

  it('of one, all, or a CPU that is not there', async () => {
    assert.equal((await run('info registers')).match(/CPU#/g)?.length, 1);
    assert.deepEqual((await run('info registers -a')).match(/CPU#\d/g), ['CPU#0', 'CPU#1']);
    assert.match(await run('info registers 1'), /CPU#1/);
    assert.match(await run('info registers 7'), /not available/);
  });

  it('by name', () => {
    const registers = longModeRegisters(0x5000n);
    const cases: [string, bigint | undefined][] = [
      ['rbx', 0x3333333333333333n],
      ['EBX', 0x33333333n],
      ['bx', 0x3333n],
      ['bl', 0x33n],
      ['ah', 0n],
      ['r9d', 0x99999999n],
      ['r15', 0xffffffffffffffffn],
      ['rip', 0xffffffff81000000n],
      ['cs', 0x10n],
      ['tr.base', 0xfffffe0000003000n],
      ['gdt.limit', 0x7fn],
      ['cr3', 0x5000n],
      ['dr7', 0x400n],
      ['xyz', undefined],
      ['r16', undefined],
    ];
    for (const [name, value] of cases) assert.equal(registerByName(registers, name), value, name);
  });
});

describe('expressions', () => {
  it('follow the monitor of QEMU', async () => {
    const cases: [string, string][] = [
      ['p 10', '0xa'],
      ['print/d 0x10', '16'],
      ['p/d 2+3*4', '14'],
      ['p/d (2+3)*4', '20'],
      ['p/d 1+6&3', '3'],
      ['p/x -1', '0xffffffffffffffff'],
      ['p/d -1', '-1'],
      ['p/x ~0 - 1', '0xfffffffffffffffe'],
      ['p/o 8', '010'],
      ['p/c 65', "'A'"],
      ["p/d 'a'", '97'],
      ['p $eip + 2*3', '0xfff6'],
      ['p/d 010', '8'],
    ];
    for (const [line, output] of cases) assert.equal(await run(line), `${output}\n`, line);
  });

  it('say what is wrong', async () => {
    const help = (name: string): string => `Try "help ${name}" for more information\n`;
    assert.equal(await run('p $nix'), `unknown register\n${help('print')}`);
    assert.equal(await run('p 1/0'), `division by zero\n${help('print')}`);
    assert.equal(await run('p'), `unexpected end of expression\n${help('print')}`);
    assert.match(await run('p (1'), /'\)' expected/);
    assert.match(await run('p 1 2'), /extraneous/);
    assert.match(await run('p 99999999999999999999999'), /too large/);
    assert.match(await run(`p ${'('.repeat(5000)}`), /nested too deeply/);
    assert.match(await run(`p ${'~'.repeat(5000)}1`), /nested too deeply/);
    assert.match(await run('x/4xz 0'), /invalid char in format: 'z'/);
  });
});

describe('x and xp', () => {
  beforeEach(() => machine.memory.set([0xea, 0x5b, 0xe0, 0x00, 0xf0, 0x30, 0x36, 0x2f, 0x27, 0x5c, 0x41], 0x1000));

  it('print as QEMU does', async () => {
    const cases: [string, string][] = [
      ['xp/4xb 0x1000', '0000000000001000: 0xea 0x5b 0xe0 0x00\n'],
      ['xp 0x1000', '0000000000001000: 0x00e05bea\n'],
      ['x/2xh 0x1000', '0000000000001000: 0x5bea 0x00e0\n'],
      ['xp/1gx 0x1000', '0000000000001000: 0x2f3630f000e05bea\n'],
      ['xp/3dw 0', '0000000000000000:          0          0          0\n'],
      ['xp/ub 0', '0000000000000000:   0\n'],
      ['xp/2cb 0x1008', "0000000000001008: '\\'' '\\\\'\n"],
      ['xp/1c 0x100a', "000000000000100a: 'A'\n"],
      ['xp/1cb 0x1000', "0000000000001000: '\\xea'\n"],
      ['xp/1ob 0x100a', '000000000000100a: 0101\n'],
      ['xp/s 0x1005', '0000000000001005: "06/\'\\\\A"\n'],
      [
        'x/2i 0x1000',
        '0x00001000:  ea 5b                    op16 234 @4096\n0x00001002:  e0 00                    op16 224 @4098\n',
      ],
    ];
    for (const [line, output] of cases) assert.equal(await run(line), output, line);
    assert.equal((await run('xp/20xh 0x1000')).split('\n').length, 4, 'sixteen bytes a line');
  });

  it('stop at memory that is not mapped, and bound what one command prints', async () => {
    machine.current = longModeRegisters(0x300000n);
    assert.equal(await run('x/2x 0xffffffff81000000'), ' Cannot access memory at 0xffffffff81000000\n');
    assert.match(await run('xp/999999999x 0'), /count is larger/);
    assert.match(await run('xp/1000000gx 0'), /at most/);
  });

  it('say so where there is no disassembler', async () => {
    const plain = new HumanMonitor({ machine, chardevs: new Map(), version: '', writeFile: async () => {} });
    assert.match(await plain.execute('x/i 0', { cpu: 0 }), /not part of this build/);
  });
});

describe('commands', () => {
  it('control the machine', async () => {
    assert.equal(await run('stop'), '');
    assert.equal(await run('info status'), 'VM status: paused\n');
    machine.state = 'prelaunch';
    assert.equal(await run('info status'), 'VM status: paused (prelaunch)\n');
    await run('c');
    assert.equal(await run('info status'), 'VM status: running\n');
    assert.match(await run('info status foo'), /extraneous characters/);
    await run('sendkey ctrl-alt-delete 50');
    assert.deepEqual(machine.calls, ['keys ctrl-alt-delete 50']);
    assert.equal(await run('sendkey ctrl-zz'), 'invalid parameter: zz\n');
    await run('screendump "a b.png" -f png');
    assert.equal(files.get('a b.png'), 'image png');
    await run('o/b 0x80 0x123');
    assert.equal(machine.calls.at(-1), 'port 128 1 35');
    assert.equal(await run('i/xb 0x70'), 'portb[0x0070] = 0x70\n');
    await run('q');
    assert.equal(await machine.exited, 0);
  });

  it('show things', async () => {
    assert.equal(await run('info cpus'), '* CPU #0: thread_id=100\n  CPU #1: thread_id=101 (halted)\n');
    assert.equal(await run('info name'), 'demo\n');
    assert.equal(await run('info version'), '0.1.0\n');
    assert.equal(await run('info pic'), 'pic0: irr=00\n');
    assert.equal(await run('info tlb'), 'PG disabled\n');
    assert.match(
      await run('info mtree -f'),
      /FlatView #0\n AS "memory".*\n.*\n {2}0000000000000000-000000000009ffff \(prio 0, ram\): pc\.ram/,
    );
    assert.match(
      await run('info mtree'),
      /address-space: I\/O\n {2}0000000000000000-000000000000ffff \(prio 0, i\/o\): io\n {4}00000000000003f8/,
    );
    assert.equal(await run('foo'), "unknown command: 'foo'\n");
    assert.equal(await run('info foo'), "unknown command: 'info foo'\n");
    assert.match(await run('help'), /^help\|\? \[cmd\] -- /m);
    assert.match(await run('help info'), /^info pic -- /m);
    assert.equal(await run(''), '');
  });

  it('parse keys', () => {
    assert.deepEqual(parseKeyList('ctrl-alt-f1'), { keys: ['ctrl', 'alt', 'f1'] });
    assert.deepEqual(parseKeyList('0x1e-<'), { keys: ['a', 'less'] });
    assert.deepEqual(parseKeyList('a-toString'), { bad: 'toString' });
  });
});

describe('console', () => {
  it('reads lines without echo from what is no terminal', async () => {
    const device = new FakeChardev();
    attachHumanMonitor(monitor, device);
    assert.match(device.output, /^Vivarium 0\.1\.0 monitor.*\n\(vivarium\) $/);
    device.output = '';
    device.type('info name\ninfo status\n');
    await settle();
    assert.equal(device.output, 'demo\n(vivarium) VM status: running\n(vivarium) ');
  });

  it('waits for the input of a multiplexer before it greets', () => {
    const lower = new FakeChardev();
    lower.terminal = true;
    const mux = new MuxChardev(lower, { quit() {} });
    mux.attach({ room: () => 0, receive() {}, drained() {} });
    attachHumanMonitor(monitor, mux);
    assert.equal(lower.output, '');
    lower.type('\x01c');
    assert.match(lower.output, /^\r\nVivarium .*\r\n\(vivarium\) $/);
    lower.output = '';
    lower.type('\x01c\x01c');
    assert.match(lower.output, /\(vivarium\) /);
    assert.doesNotMatch(lower.output, /monitor - type/);
  });

  it('edits, recalls and completes on a terminal', async () => {
    const device = new FakeChardev();
    device.terminal = true;
    attachHumanMonitor(monitor, device);
    const enter = async (keys: string): Promise<string> => {
      device.output = '';
      device.type(`${keys}\r`);
      await settle();
      return device.output;
    };
    assert.equal(await enter('info name'), 'info name\r\ndemo\r\n(vivarium) ');
    assert.match(await enter('nfo name\x01i'), /demo\r\n/);
    assert.match(await enter('infxx\x7f\x7fo nam\x1b[D\x1b[D\x1b[D\x1b[Cam\x0be'), /unknown|demo/);
    assert.match(await enter('garbage\x15info uuid'), /00000000-0000/);
    assert.match(await enter('\x1b[A\x1b[A\x10'), /\r\n/);
    assert.match(await enter('info vers\t'), /info version \r\n0\.1\.0/);
    assert.match(await enter('sto\t'), /stop \r\n/);
    assert.equal(machine.state, 'paused');
    device.output = '';
    device.type('info s\t\t');
    assert.match(device.output, /stats {2}status/);
  });
});
