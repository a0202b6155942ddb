/** `npm run goldens`: writes anew what the translator makes of the sequences in test/golden, for `git diff` to show. */
import { join } from 'node:path';
import { ensurePackages, node24, root, run } from './setup.mjs';

await ensurePackages();
process.env.GOLDENS = 'write';
process.exit(await run(node24, [join(root, 'test', 'golden', 'golden.test.ts')]));
