import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { lockHolder } from '../../main/vm/library-lock.ts';
import { doubleEntry, openServices, plan, temporaryFolder } from './fixtures.ts';

const script = fileURLToPath(new URL('../../scripts/vivarium.mjs', import.meta.url));

async function vivarium(
  folder: string,
  args: string[],
  input?: (child: ChildProcess) => void,
): Promise<{ status: number; out: string; err: string }> {
  const child = spawn(process.execPath, [script, '--library', join(folder, 'library'), ...args], {
    env: { ...process.env, XDG_CONFIG_HOME: join(folder, 'config'), NODE_TEST_CONTEXT: undefined },
    stdio: 'pipe',
  });
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    err += text;
  });
  input?.(child);
  const [status] = await once(child, 'close');
  return { status, out, err };
}

/** A library with one VM, and whatever app was started on it ended afterwards. */
async function library(context: TestContext): Promise<string> {
  const folder = temporaryFolder(context);
  const { services, ask } = await openServices(context, folder);
  await ask('wizard.create', { plan: plan(folder, 'Alpha'), start: false });
  await services.close();
  context.after(async () => {
    const holder = await lockHolder(join(folder, 'library'));
    if (holder === undefined || holder.pid === process.pid) return;
    process.kill(holder.pid, 'SIGTERM');
    for (let wait = 0; wait < 50 && (await lockHolder(join(folder, 'library'))) !== undefined; wait++)
      await new Promise((resolve) => setTimeout(resolve, 100));
  });
  return folder;
}

test('without an app: looks by itself, and leaves no lock', async (context) => {
  const folder = await library(context);
  const all = await vivarium(folder, ['list', '--all']);
  assert.equal(all.status, 0, all.err);
  assert.match(all.out, / Id +Name +State\n-+\n .+ Alpha +shut off\n/);
  assert.doesNotMatch((await vivarium(folder, ['list'])).out, /Alpha/);
  assert.match((await vivarium(folder, ['dominfo', 'alpha'])).out, /^Name: +Alpha\n[\s\S]*CPU\(s\): +2\nMax memory: +65536 KiB/);
  const unknown = await vivarium(folder, ['dominfo', 'Beta']);
  assert.deepEqual([unknown.status, unknown.err], [1, 'error: There is no VM named "Beta"\n']);
  assert.match((await vivarium(folder, ['frobnicate'])).err, /no command "frobnicate"/);
  assert.match((await vivarium(folder, ['start'])).err, /Usage: vivarium start NAME/);
  assert.equal(await lockHolder(join(folder, 'library')), undefined);
});

test('start brings an app in the background; commands, console and shutdown go through it', async (context) => {
  const folder = await library(context);
  const started = await vivarium(folder, ['start', 'Alpha', '--engine-entry', doubleEntry]);
  assert.equal(started.out, "Domain 'Alpha' started\n", started.err);
  assert.match((await vivarium(folder, ['list'])).out, /Alpha +running/);
  assert.equal((await vivarium(folder, ['suspend', 'Alpha'])).out, "Domain 'Alpha' suspended\n");
  assert.equal((await vivarium(folder, ['domstate', 'Alpha'])).out, 'paused\n');
  assert.equal((await vivarium(folder, ['resume', 'Alpha'])).out, "Domain 'Alpha' resumed\n");
  assert.equal(
    (await vivarium(folder, ['qemu-monitor-command', 'Alpha', '--hmp', 'info', 'status'])).out,
    'you said: info status\n',
  );
  assert.match((await vivarium(folder, ['undefine', 'Alpha'])).err, /is running\. Shut it down/);
  const console = await vivarium(folder, ['console', 'Alpha'], (child) => {
    let seen = '';
    child.stdout?.on('data', (data) => {
      seen += data;
      if (seen === 'serial0 of Alpha\n') child.stdin?.write('hello\n');
      if (seen.includes('echo hello')) child.kill('SIGTERM');
    });
  });
  assert.match(console.out, /^serial0 of Alpha\necho hello\n/);
  assert.equal((await vivarium(folder, ['shutdown', 'Alpha'])).out, "Domain 'Alpha' is being shutdown\n");
  for (let wait = 0; wait < 20 && (await vivarium(folder, ['domstate', 'Alpha'])).out !== 'shut off\n'; wait++);
  assert.match((await vivarium(folder, ['undefine', 'Alpha'])).out, /has been undefined/);
  assert.equal((await vivarium(folder, ['undelete'])).out, "Domain 'Alpha' is back\n");
});
