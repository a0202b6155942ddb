/** `vivarium img`: qemu-img's verbs and options on our block layer. */
import { BlockError } from '../../block/errors.ts';
import { UsageError } from './args.ts';
import { commit, rebase, resize, snapshot } from './change.ts';
import { check } from './check.ts';
import { convert } from './convert.ts';
import { create } from './create.ts';
import { info } from './info.ts';
import { compare, map } from './map.ts';
import { bench, dd, measure } from './measure.ts';

const VERBS: Record<string, (argv: string[]) => number> = {
  bench,
  check,
  commit,
  compare,
  convert,
  create,
  dd,
  info,
  map,
  measure,
  rebase,
  resize,
  snapshot,
};

const USAGE = `usage: vivarium img COMMAND [options]

  bench    [-c count] [-f fmt] [--flush-interval=N] [-o offset] [--pattern=N] [-q] [-s size] [-S step] [-t cache] [-w] file
  check    [-q] [-f fmt] [--output=human|json] [-r leaks|all] file
  commit   [-q] [-f fmt] [-t cache] [-b base] [-d] [-p] file
  compare  [-f fmt] [-F fmt] [-p] [-q] [-s] file1 file2
  convert  [-c] [-p] [-q] [-n] [-f fmt] [-O fmt] [-t cache] [-B backing [-F fmt]] [-o options] [-l snapshot] [-S size] file... output
  create   [-q] [-f fmt] [-b backing -F fmt] [-u] [-o options] file [size]
  dd       [-f fmt] [-O fmt] [bs=N] [count=N] [skip=N] if=input of=output
  info     [-f fmt] [--output=human|json] [--backing-chain] file
  map      [-f fmt] [--start-offset=N] [--max-length=N] [--output=human|json] file
  measure  [--output=human|json] [-O fmt] [-o options] [-l snapshot] (--size N | file)
  rebase   [-q] [-f fmt] [-t cache] [-p] [-u] -b backing [-F fmt] file
  resize   [-f fmt] [--preallocation=mode] [-q] [--shrink] file [+|-]size
  snapshot [-q] [-l | -a name | -c name | -d name] file

Common: --object secret,id=ID,data=TEXT|file=PATH, --image-opts, -U (open although another process writes).
Formats: raw, qcow2; to read: luks, vmdk, vdi, vhdx, vpc. Sizes take k, M, G, T, P, E. \`-o help\` lists options.
`;

/** Runs one verb; resolves with the exit status. Messages of errors go to stderr. */
export async function imgMain(argv: string[]): Promise<number> {
  const [verb, ...rest] = argv;
  if (verb === undefined || verb === '-h' || verb === '--help' || verb === 'help') {
    process.stdout.write(USAGE);
    return verb === undefined ? 1 : 0;
  }
  if (verb === '-V' || verb === '--version') {
    process.stdout.write('vivarium img\n');
    return 0;
  }
  const run = Object.hasOwn(VERBS, verb) ? VERBS[verb] : undefined;
  if (!run) {
    process.stderr.write(`vivarium img: Command not found: ${verb}\nTry 'vivarium img --help' for more information\n`);
    return 1;
  }
  if (rest.includes('--help') || rest.includes('-h')) {
    process.stdout.write(USAGE);
    return 0;
  }
  try {
    return run(rest);
  } catch (error) {
    if (error instanceof UsageError || error instanceof BlockError) {
      process.stderr.write(`vivarium img: ${error.message}\n`);
      return verb === 'compare' ? 2 : 1;
    }
    throw error;
  }
}
