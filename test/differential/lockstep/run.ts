/** `node test/differential/lockstep/run.ts [INSTRUCTIONS [KERNEL COMMAND LINE]]`: see lockstep.ts. */
import { lockstep, TIERS } from './lockstep.ts';

const [until = '6e9', append = 'console=ttyS0 rdinit=/bin/busybox -- poweroff -f'] = process.argv.slice(2);
const { compared, divergence } = await lockstep(append, Number(until));
if (divergence === undefined) console.log(`${compared} checkpoints, no difference`);
else {
  console.log(`the same at ${divergence.same} instructions, not at ${divergence.at}:`);
  for (const [n, line] of divergence.lines.entries()) console.log(`  ${TIERS[n]}: ${line}`);
  process.exitCode = 1;
}
