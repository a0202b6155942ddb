/** Starts that take no operating system: small kernels of all forms, and what cannot be started at all. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { guest, startVm, type VmOptions, withoutGuest } from './harness.ts';
import { multibootImage, pvhImage } from './images.ts';

function folderFor(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-start-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const forms = [
  { name: 'multiboot', image: multibootImage(), first: 'multiboot magic', status: 33, wide: false },
  { name: 'PVH, ELF32', image: pvhImage(32), first: 'start info', status: 35, wide: false },
  { name: 'PVH, ELF64, more than 4 GiB', image: pvhImage(64), first: 'start info', status: 35, wide: true },
];
for (const { name, image, first, status, wide } of forms)
  test(`a kernel of the form ${name} gets its command line and module`, async (context) => {
    const folder = folderFor(context);
    const [kernel, initrd] = ['kernel', 'module'].map((each) => join(folder, each));
    writeFileSync(kernel, image);
    writeFileSync(initrd, 'the module\n\0');
    const vm = startVm(context, {
      kernel: false,
      memory: wide ? 5000 : 16,
      more: ['-kernel', kernel, '-initrd', initrd, '-append', 'some words', '-device', 'isa-debug-exit,iobase=0xf4,iosize=4'],
    });
    assert.equal(await vm.exit(90), status, vm.complaints);
    const [magic, line, module] = vm.output.replaceAll('\r', '').split('\n');
    assert.equal(magic, first);
    assert.ok(line.endsWith('some words'), line);
    assert.equal(module, 'the module');
  });

/** Starts a machine that must refuse; returns its exit status and words. */
async function refused(context: TestContext, options: VmOptions): Promise<string> {
  const vm = startVm(context, options);
  const status = await vm.exit(60);
  assert.equal(status, 1, `status ${status}: ${vm.complaints}`);
  assert.ok(!/^\s+at /m.test(vm.complaints), `a stack trace is no message: ${vm.complaints}`);
  return vm.complaints;
}

test('what is no kernel, is not there, or is cut off', { skip: withoutGuest() }, async (context) => {
  const folder = folderFor(context);
  const { kernel, initrd } = guest() as { kernel: string; initrd: string };
  const [text, short, cutInitrd] = ['text', 'short', 'cut'].map((each) => join(folder, each));
  writeFileSync(text, 'no kernel at all\n'.repeat(100));
  writeFileSync(short, readFileSync(kernel));
  truncateSync(short, 3_000_000);
  writeFileSync(cutInitrd, readFileSync(initrd));
  truncateSync(cutInitrd, 500_000);
  const words = async (...more: string[]): Promise<string> => await refused(context, { kernel: false, memory: 128, more });
  const answers = [
    await words('-kernel', text),
    await words('-kernel', join(folder, 'nowhere')),
    await words('-kernel', short),
    await words('-kernel', kernel, '-initrd', cutInitrd),
    await words('-kernel', kernel, '-m', '8'),
    await words('-kernel', folder),
  ];
  context.diagnostic(answers.join('').trim());
  const wanted = [
    /not a kernel/,
    /nowhere.*(does not exist|No such file)/i,
    /truncated/,
    /(truncated|cut off|incomplete)/,
    /MiB/,
    /(not a file|Is a directory)/,
  ];
  for (const [n, pattern] of wanted.entries()) assert.match(answers[n], pattern);
});

test('more memory than there is, and a port in use', async (context) => {
  const folder = folderFor(context);
  const kernel = join(folder, 'kernel');
  writeFileSync(kernel, multibootImage());
  const tooMuch = await refused(context, { kernel: false, memory: 64_000_000, more: ['-kernel', kernel] });
  assert.match(tooMuch, /memory.*MiB/);
  const server = createServer().listen(0, '127.0.0.1');
  context.after(() => server.close());
  await new Promise((done) => server.on('listening', done));
  const { port } = server.address() as { port: number };
  const taken = await refused(context, {
    kernel: false,
    memory: 16,
    more: ['-kernel', kernel, '-qmp', `tcp:127.0.0.1:${port},server=on,wait=off`],
  });
  assert.match(taken, new RegExp(`${port}.*in use|in use.*${port}`, 'is'));
  context.diagnostic(tooMuch.trim());
  context.diagnostic(taken.trim());
});
