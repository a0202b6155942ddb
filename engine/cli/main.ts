/**
 * The engine's commands: `vivarium run OPTIONS` and `vivarium img COMMAND`. The app's own (`serve`, `list`, `start` ...)
 * are not here.
 */
import { version } from '../monitor/version.ts';

/** The words that `main` takes; every other is the app's. */
export const engineCommands: readonly string[] = ['run', 'img', 'help', '--help', '-h', 'version', '--version'];

const usage = `usage: vivarium COMMAND [options]

  run     starts a machine in this terminal (vivarium run -help)
  img     makes, converts and checks disk images (vivarium img --help)
  version the version
`;

/** Runs one command and resolves with its exit status. `argv`: the words after the program's name. */
export async function main(argv: readonly string[]): Promise<number> {
  const [command, ...rest] = argv;
  switch (command) {
    case 'run': {
      const [{ runMain }, { systemHost }, { startMachine }] = await Promise.all([
        import('./run/run.ts'),
        import('./run/host.ts'),
        import('../machine/main.ts'),
      ]);
      return runMain(rest, {
        startMachine,
        host: systemHost,
        print: (text) => process.stdout.write(text),
        complain: (text) => process.stderr.write(text),
      });
    }
    case 'img': {
      const { imgMain } = await import('./img/main.ts');
      return await imgMain(rest);
    }
    case 'version':
    case '--version':
      process.stdout.write(`Vivarium version ${version}\n`);
      return 0;
    case undefined:
      process.stderr.write(usage);
      return 1;
    case 'help':
    case '--help':
    case '-h':
      process.stdout.write(usage);
      return 0;
  }
  process.stderr.write(`vivarium: '${command}' is no command of the engine (run, img, version)\n`);
  return 1;
}

if (import.meta.main) {
  const status = await main(process.argv.slice(2));
  // Worker threads and open handles must not keep a process whose command is done.
  process.exit(status);
}
